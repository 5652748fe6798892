#!/usr/bin/env python3
"""What it costs to bring an image and its next version to another host: engines x cases, bytes on the wire and seconds.

    delta.py [--imgmv PROGRAM] [--mib N] [--rounds N] [--mbit N] [--only ENGINE,…]

Needs root, sshd, and the engines that tests/peers.sh sets up; those that are not there are left out. Every host is a real
sshd on the loopback device of a network of its own, so that every byte on it is the copy's, both ways, headers included.
Beside imgmv stands what people type: docker save of this host's docker into the engine's own load command over the same
ssh. imgmv reads the image from a layout, whose layers are gzip as in a registry.
"""
import argparse
import fcntl
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import loopback_bytes

HERE = Path(__file__).resolve().parent.parent
NEWER = Path(os.environ.get("IMGMV_PEERS_DIR", "/var/cache/imgmv-peers"))
ALONE = "IMGMV_BENCH_DELTA_ALONE"
MIB = 1 << 20
WAIT = 60  # seconds for a daemon to come up
LONGEST = 600  # seconds, after which a command is taken to hang
# Of --mib: three layers that both versions have, and one that is new in each.
SHARES = (0.6, 0.2, 0.15, 0.05)

# label, newer suite, kind, the load command
ENGINES = [
    ("docker 20", False, "docker", "docker load -q"),
    ("docker 28", True, "docker", "docker load -q"),
    ("docker 28, containerd store", True, "docker-containerd", "docker load -q"),
    ("containerd 1.6", False, "containerd", "ctr images import -"),
    ("containerd 2.1", True, "containerd", "ctr images import -"),
    ("podman 4.3", False, "podman", "podman load -q"),
    ("podman 5.8", True, "podman", "podman load -q"),
]


def alone(argv):
    """Begins anew in a network and mounts of its own."""
    if os.environ.get(ALONE) != "1":
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", "env", f"{ALONE}=1",
                              sys.executable, *argv])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING


def content(size, seed):
    """A tar of one file, half noise and half text, as layers are."""
    noise = random.Random(seed)
    text = (b"a line that comes again and again, number %d\n" % seed) * 2000
    out = bytearray()
    while len(out) < size:
        out += noise.randbytes(32 << 10) + text[:32 << 10]
    name = f"file-{seed}".encode()
    header = bytearray(512)
    header[0:len(name)] = name
    for at, field in ((100, b"0000644"), (108, b"0000000"), (116, b"0000000"), (124, b"%011o" % size), (136, b"0" * 11),
                      (156, b"0"), (257, b"ustar\x0000"), (148, b" " * 8)):
        header[at:at + len(field)] = field
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(out[:size]) + bytes(-size % 512 + 1024)


def layout(folder, mib):
    """An OCI layout with app:1 and app:2."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    oci = "application/vnd.oci.image."

    def keep(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    raw = [content(int(mib * MIB * share), seed) for seed, share in enumerate(SHARES + SHARES[-1:])]
    packed = [keep(gzip.compress(each, 6, mtime=0), oci + "layer.v1.tar+gzip") for each in raw]
    roots = []
    for version, picked in ((1, (0, 1, 2, 3)), (2, (0, 1, 2, 4))):
        ids = [f"sha256:{hashlib.sha256(raw[n]).hexdigest()}" for n in picked]
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}}
        config = keep(json.dumps(config).encode(), oci + "config.v1+json")
        kind = oci + "manifest.v1+json"
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [packed[n] for n in picked]}
        root = keep(json.dumps(manifest).encode(), kind)
        root["annotations"] = {"org.opencontainers.image.ref.name": str(version)}
        roots.append(root)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": roots}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return folder


class Engine:
    """An engine in a folder of its own, found by its environment."""

    def __init__(self, newer, kind):
        self.folder = Path(tempfile.mkdtemp(prefix="imgmv-b", dir="/tmp"))
        at = lambda name: str(self.folder / name)
        path = os.environ["PATH"]
        self.environment = {"HOME": at(""), "PATH": f"{NEWER}/new:{path}" if newer else path}
        self.process = None
        if kind.startswith("docker"):
            store = '{"features":{"containerd-snapshotter":true}}' if kind == "docker-containerd" else "{}"
            (self.folder / "daemon.json").write_text(store)
            words = ["--config-file", at("daemon.json"), "--data-root", at("data"), "--exec-root", at("exec"), "--pidfile",
                     at("pid"), "-H", f"unix://{at('sock')}", "--bridge=none", "--iptables=false"]
            if kind == "docker":
                words += ["--storage-driver", "overlay2"]
            self.environment["DOCKER_HOST"] = f"unix://{at('sock')}"
            self.start("dockerd", words, ["docker", "version"])
        elif kind == "containerd":
            self.environment["CONTAINERD_ADDRESS"] = at("sock")
            words = ["--config", "/dev/null", "--root", at("data"), "--state", at("state"), "--address", at("sock")]
            self.start("containerd", words, ["ctr", "version"])
        else:
            storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{at("data")}"\nrunroot = "{at("run")}"\n'
            (self.folder / "storage.conf").write_text(storage)
            self.environment |= {"CONTAINERS_STORAGE_CONF": at("storage.conf"), "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
            if shutil.which("podman", path=self.environment["PATH"]) is None:
                raise FileNotFoundError("podman")

    def start(self, server, words, ready):
        program = shutil.which(server, path=self.environment["PATH"])
        if program is None or shutil.which(ready[0], path=self.environment["PATH"]) is None:
            raise FileNotFoundError(server)
        log = open(self.folder / "log", "w")
        self.process = subprocess.Popen([program, *words], env=os.environ | self.environment, stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log)
        until = time.monotonic() + WAIT
        while self.run(ready).returncode:
            if time.monotonic() > until:
                raise TimeoutError(f"{server} did not come up, see {self.folder}/log")
            time.sleep(0.05)

    def run(self, words, **more):
        env = os.environ | self.environment
        program = shutil.which(words[0], path=env["PATH"]) or words[0]
        return subprocess.run([program, *words[1:]], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=LONGEST, **more)

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounts if place.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "-l", place], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)


class Sshd:
    """A host `node1` whose sessions have an engine's environment."""

    def __init__(self, engine):
        self.folder = Path(tempfile.mkdtemp(prefix="imgmv-b", dir="/tmp"))
        at = lambda name: str(self.folder / name)
        os.makedirs("/run/sshd", exist_ok=True)
        for key in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at(key)], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        setenv = " ".join(f"{key}={value}" for key, value in engine.environment.items())
        Path(at("sshd_config")).write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {at('host_key')}\nAuthorizedKeysFile {at('key.pub')}\n"
            f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nUseDNS no\nSetEnv {setenv}\n")
        Path(at("known_hosts")).write_text(f"[127.0.0.1]:{port} {Path(at('host_key.pub')).read_text()}")
        Path(at("config")).write_text(
            f"Host node1\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile {at('key')}\n IdentitiesOnly yes\n"
            f" UserKnownHostsFile {at('known_hosts')}\n BatchMode yes\n")
        log = open(at("log"), "w")
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", at("sshd_config")], stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log)
        self.client = f"ssh -F {at('config')}"
        until = time.monotonic() + WAIT
        while subprocess.run([*self.client.split(), "node1", "true"], stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL).returncode:
            if time.monotonic() > until:
                raise TimeoutError("sshd did not come up")
            time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def measured(command, env):
    """Bytes on the wire and seconds of a line that bash runs."""
    before, start = loopback_bytes(), time.perf_counter()
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=LONGEST)
    cost = loopback_bytes() - before, time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{command}\n{done.stderr}")
    return cost


def row(label, newer, kind, load, source, near, imgmv):
    """The costs of every case, imgmv's and the pipe's, each into an engine of its own."""
    costs = {}
    ways = {
        "imgmv": lambda ssh, version: f"{imgmv} copy -q --ssh '{ssh}' oci:{source}:{version} ssh://node1/t/app:x",
        "pipe": lambda ssh, version: f"docker save t/app:{version} | {ssh} node1 {load}",
    }
    for way, line in ways.items():
        engine = Engine(newer, kind)
        try:
            sshd = Sshd(engine)
            try:
                env = os.environ | near.environment
                for case, version in (("cold", 1), ("again", 1), ("next version", 2)):
                    costs[way, case] = measured(line(sshd.client, version), env)
            finally:
                sshd.stop()
        finally:
            engine.stop()
    return costs


def shown(costs):
    """`12.3 MB, 0.45 s`, medians of each."""
    wire = statistics.median(cost[0] for cost in costs)
    seconds = statistics.median(cost[1] for cost in costs)
    amount = f"{wire / 1e6:.1f} MB" if wire >= 1e6 else f"{wire / 1e3:.0f} kB"
    return f"{amount}, {seconds:.2f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imgmv", default=HERE / "target/release/imgmv")
    parser.add_argument("--mib", type=int, default=200, help="of each version's layers, unpacked")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mbit", type=int, help="of the line, a second; without it, as fast as the machine")
    parser.add_argument("--only", help="engines, by the beginning of their names")
    options = parser.parse_args()
    alone(sys.argv)
    if options.mbit:
        rate = ["rate", f"{options.mbit}mbit", "burst", "256k", "latency", "50ms"]
        subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", "tbf", *rate], check=True)
    imgmv = Path(options.imgmv).resolve()
    picked = [row for row in ENGINES if not options.only or row[0].startswith(tuple(options.only.split(",")))]
    work = Path(tempfile.mkdtemp(prefix="imgmv-bench", dir="/tmp"))
    near = Engine(False, "docker")
    try:
        source = layout(work / "layout", options.mib)
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        for version in (1, 2):
            measured(f"{imgmv} copy -q oci:{source}:{version} docker-daemon:t/app:{version}", os.environ | near.environment)
        print("| into | imgmv: cold | again | next version | docker save \\| ssh: cold | again | next version |")
        print("|---|---|---|---|---|---|---|")
        for label, newer, kind, load in picked:
            rounds = []
            try:
                for _ in range(options.rounds):
                    rounds.append(row(label, newer, kind, load, source, near, imgmv))
            except FileNotFoundError as missing:
                print(f"{label}: left out, there is no {missing}", file=sys.stderr)
                continue
            cells = [shown([costs[key] for costs in rounds]) for key in rounds[0]]
            print(f"| {label} | {' | '.join(cells)} |", flush=True)
    finally:
        near.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
