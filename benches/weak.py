#!/usr/bin/env python3
"""What weak lines do to imgmv and to its peers: one row a fault, one column a program, all through the same proxy.

    weak.py [--imgmv PROGRAM] [--proxy PROGRAM] [--mib N] [--only ROW]

PROGRAM are by default those that `cargo build --release --example fault_proxy --bin imgmv` makes. A cell says how a copy
ended, how long it took, and what went over the wire. Peers are those of bench.py that read registries; those that are
not there are left out.
"""
import argparse
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import programs
from bench import free_port
from registry import Registry

HERE = Path(__file__).resolve().parent.parent
MIB = 1 << 20
LONGEST = 150  # seconds; a program that is not done by then hangs (the slowest push takes some 70)
PEERS = ("imgmv", "skopeo", "crane", "oras")
SMALL = 60  # layers


def blob(folder, data, kind):
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def image(folder, sizes, seed):
    """An OCI layout of one image with layers of noise, in the form of gzip: skopeo packs anything else anew."""
    (folder / "blobs/sha256").mkdir(parents=True)
    noise = random.Random(seed)
    oci = "application/vnd.oci.image."
    bytes_of = lambda size: b"".join(noise.randbytes(min(MIB, size - at)) for at in range(0, size, MIB))
    layers = [blob(folder, gzip.compress(bytes_of(size), 0, mtime=0), oci + "layer.v1.tar+gzip") for size in sizes]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [l["digest"] for l in layers]}}
    config = blob(folder, json.dumps(config).encode(), oci + "config.v1+json")
    kind = oci + "manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}
    root = blob(folder, json.dumps(manifest).encode(), kind)
    root["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return folder, root["digest"], layers


def pull(name, start, source, out):
    return start + {
        "imgmv": ["copy", source, f"oci:{out}:1", "-q"],
        "skopeo": ["copy", "--insecure-policy", "-q", "--src-tls-verify=false", f"docker://{source}", f"oci:{out}:1"],
        "crane": ["pull", "--insecure", "--format", "oci", source, str(out)],
        "oras": ["copy", "--from-plain-http", "--no-tty", "--to-oci-layout", source, f"{out}:1"],
    }[name]


def arrived(out):
    """The digest of the manifest that a pull has left in the layout `out`."""
    try:
        return json.loads((out / "index.json").read_text())["manifests"][-1]["digest"]
    except (OSError, ValueError, LookupError):
        return None


def push(name, start, layout, target):
    return start + {
        "imgmv": ["copy", f"oci:{layout}:1", target, "-q", "--compress", "keep"],
        "skopeo": ["copy", "--insecure-policy", "-q", "--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{target}"],
        "crane": ["push", "--insecure", str(layout), target],
        "oras": ["copy", "--to-plain-http", "--no-tty", "--from-oci-layout", f"{layout}:1", target],
    }[name]


class Line:
    """The proxy, with its faults."""

    def __init__(self, program, server, faults):
        words = [program, server, *faults]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.host = self.process.stdout.readline().strip()

    def end(self):
        told, _ = self.process.communicate()
        return json.loads(told)


class Weak:
    def __init__(self, given, found):
        self.given, self.programs = given, found
        self.work = Path(tempfile.mkdtemp(prefix="imgmv-weak-"))
        self.registry = Registry(self.work / "registry", free_port())
        self.large = image(self.work / "large", [given.mib * MIB], 1)
        self.huge = image(self.work / "huge", [8 * given.mib * MIB], 2)
        self.sixty = image(self.work / "sixty", [20_000 + n for n in range(SMALL)], 3)
        self.runs = 0

    def environment(self, home):
        home.mkdir(parents=True)
        (home / "auth.json").write_text("{}")
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
        return kept | {"HOME": str(home), "TMPDIR": str(home), "DOCKER_CONFIG": str(home), "XDG_RUNTIME_DIR": str(home),
                       "REGISTRY_AUTH_FILE": str(home / "auth.json"), "XDG_CACHE_HOME": str(home / "cache")}

    def run(self, command, env, kill_after=None, line=None):
        log = open(self.work / "log", "w")
        began = time.monotonic()
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=env["HOME"], start_new_session=True)
        try:
            process.wait(kill_after(process) if callable(kill_after) else LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None, time.monotonic() - began
        return process.returncode, time.monotonic() - began

    def place(self):
        self.runs += 1
        folder = self.work / f"at{self.runs}"
        return folder, self.environment(folder / "home")

    def pulled(self, name, which, faults, options=()):
        folder, env = self.place()
        line = Line(self.given.proxy, self.registry.address, faults)
        command = pull(name, self.programs[name].start, f"{line.host}/{which}:1", folder / "out") + list(options)
        status, seconds = self.run(command, env)
        wire = line.end()
        wrong = self.wrong(folder / "out", which)
        shutil.rmtree(folder)
        return self.cell(status, seconds, wire, wrong, wire["down"])

    def pushed(self, name, which, faults):
        folder, env = self.place()
        line = Line(self.given.proxy, self.registry.address, faults)
        repository = f"to-{name}-{self.runs}"
        layout, digest, _ = getattr(self, which)
        self.registry.forget(repository)
        status, seconds = self.run(push(name, self.programs[name].start, layout, f"{line.host}/{repository}:1"), env)
        wire = line.end()
        wrong = None if self.registry.tag(repository) == digest else "another image is there"
        shutil.rmtree(folder)
        return self.cell(status, seconds, wire, wrong, wire["up"])

    def killed(self, name):
        """Killed when half of the blob has passed; what the rerun fetches, and what lies there besides the image."""
        folder, env = self.place()
        size = 8 * self.given.mib * MIB
        # The line is slow enough for half of it to be found out.
        line = Line(self.given.proxy, self.registry.address, ["rate=60000000"])
        command = pull(name, self.programs[name].start, f"{line.host}/huge:1", folder / "out")
        log = open(self.work / "log", "w")
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=env["HOME"], start_new_session=True)
        try:
            process.wait(size / 60e6 / 2)
        except subprocess.TimeoutExpired:
            pass
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.wait()
        before = line.end()["down"]
        line = Line(self.given.proxy, self.registry.address, [])
        command = pull(name, self.programs[name].start, f"{line.host}/huge:1", folder / "out")
        status, _ = self.run(command, env)
        fetched = line.end()["down"]
        kept = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        litter = max(0, kept - size)
        shutil.rmtree(folder)
        ended = "ok" if status == 0 else "fails"
        return f"{ended}, killed at {before // MIB} MiB: {fetched // MIB} MiB fetched, {litter // MIB} MiB litter"

    def wrong(self, out, which):
        """What is not as it should be in the layout `out`, if anything is."""
        _, root, layers = getattr(self, which)
        found = arrived(out)
        if found != root:
            return "**accepted another manifest**" if found else "nothing is there"
        for layer in layers:
            digest = layer["digest"].split(":")[1]
            blobs = [path for path in out.rglob(digest) if path.is_file()]
            if not any(hashlib.sha256(path.read_bytes()).hexdigest() == digest for path in blobs):
                return "**kept another layer**"
        return None

    def cell(self, status, seconds, wire, wrong, moved):
        if status is None:
            return "hangs"
        if status != 0:
            return f"fails ({seconds:.1f} s)"
        if wrong:
            return wrong
        return f"ok, {seconds:.1f} s, {moved / MIB:.1f} MiB, {wire['requests']} req."

    def rows(self):
        layer = self.large[2][0]["digest"]
        half = self.given.mib * MIB // 2
        get = lambda times, ill: [f"GET,{layer},{times},{ill}"]
        pulls = [
            ("no fault", []),
            ("closed at half, once", get(1, f"cut={half}")),
            ("reset at half, once", get(1, f"reset={half}")),
            ("every connection cut every 400 kB", ["cut-every=400000"]),
            ("server stalls at half", get(1, f"stall={half}")),
            ("500 once", get(1, "status=500")),
            ("503 three times", get(3, "status=503")),
            ("429 with Retry-After: 2, three times", get(3, "status=429/2")),
            ("token expires midway (401)", ["tokens=1", *get(1, "expired")]),
            ("signed address of the blob expires at half", ["signed=1", f"GET,sig=,1,cut={half}"]),
            ("headers at one byte a second, once", get(1, "drip=1000")),
            ("web page instead of the manifest", ["GET,/manifests/,99,page", "HEAD,/manifests/,99,page"]),
            ("one bit flipped in the manifest", ["GET,/manifests/,1,flip=40"]),
            ("200 ms, 10 MB/s a connection", ["latency=200", "rate=10000000"]),
        ]
        for title, faults in pulls:
            yield title, lambda name, faults=faults: self.pulled(name, "large", faults)
        narrow = ["latency=200", "rate=10000000"]
        single = lambda name: self.pulled(name, "large", narrow, ["--jobs", "1"]) if name == "imgmv" else ""
        yield "the same over one connection (`--jobs 1`)", single
        yield "kill -9 at half, run again", self.killed
        yield "upload cut at half", lambda name: self.pushed(name, "large", [f"PUT,/uploads/,1,cut-upload={half}",
                                                                            f"PATCH,/uploads/,1,cut-upload={half}"])
        yield "upload, every connection cut every 4 MB", lambda name: self.pushed(name, "large", ["cut-every=4000000"])
        yield "upload, bodies above 4 MiB get 413", lambda name: self.pushed(name, "large", [f"body-limit={4 * MIB}"])
        yield "upload, each request first answered 429 twice", lambda name: self.pushed(name, "large", ["refuse-first=2/429"])
        yield "60 layers at 200 ms, pull", lambda name: self.pulled(name, "sixty", ["latency=200"])
        yield "60 layers at 200 ms, push", lambda name: self.pushed(name, "sixty", ["latency=200"])

    def table(self):
        self.registry.start()
        try:
            for which in ("large", "huge", "sixty"):
                self.registry.seed(getattr(self, which)[0], which)
            print("| fault | " + " | ".join(f"{name} {found.version}" for name, found in self.programs.items()) + " |")
            print("|---" * (len(self.programs) + 1) + "|")
            for title, row in self.rows():
                if self.given.only in title:
                    print(f"| {title} | " + " | ".join(row(name) for name in self.programs) + " |", flush=True)
        finally:
            self.registry.stop()
            shutil.rmtree(self.work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imgmv", default=HERE / "target/release/imgmv")
    parser.add_argument("--proxy", default=HERE / "target/release/examples/fault_proxy")
    parser.add_argument("--mib", type=int, default=60)
    parser.add_argument("--only", default="", help="rows with this in their title")
    given = parser.parse_args()
    if not Path(given.proxy).exists():
        sys.exit(f"weak: no {given.proxy}; cargo build --release --example fault_proxy makes it")
    found = programs.find_all(given.imgmv, {})
    Weak(given, {name: program for name, program in found.items() if name in PEERS}).table()


if __name__ == "__main__":
    main()
