#!/usr/bin/env python3
"""containerd by its socket: imgmv against ctr, here and over ssh, and over a far line against one plain stream.

    containerd.py [--imgmv PROGRAM] [--mib N] [--rounds N] [--containerd PROGRAM --ctr PROGRAM] [--only PART]

A containerd with a directory of its own, with one image of one layer of noise. The image is for s390x, so that it is
stored and not unpacked: `ctr content ingest` does not unpack either. The far line has a round trip of 30 ms and carries
100 MB/s; the plain stream, which is not hashed, passes the same line. Every program runs once in each round; the first
round is not counted. The goals: reading over ssh takes at most 0.35 of `ctr content get` over ssh; over the far line,
reading reaches 0.8 of one plain stream; writing over ssh is at least as fast as `ctr content ingest` over ssh; imgmv
needs at most 64 MiB.
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import measure as processes
from ssh import HERE, MIB, host

REF = "docker.io/library/bench:1"
ONE_WAY = 0.015
RATE = 100e6  # bytes per second of the far line
PIECE = 256 << 10


class Noise:
    """A file of noise that is never in memory, so that this process stays small: its memory counts in its children's."""

    def __init__(self):
        self.noise = random.Random(1)

    def read(self, size):
        return b"".join(self.noise.randbytes(min(MIB, size - at)) for at in range(0, size, MIB))


def stored(blobs, content, media_type):
    """Stores a document; its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def image(folder, size):
    """An OCI layout of one image with one uncompressed layer, a file of `size` bytes of noise. The layer's descriptor."""
    oci = "application/vnd.oci.image."
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w", copybufsize=MIB) as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = size
        tar.addfile(entry, Noise())
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    described = {"mediaType": oci + "layer.v1.tar", "digest": f"sha256:{digest}", "size": layer.stat().st_size}
    layer.rename(blobs / digest)
    config = {"architecture": "s390x", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [described["digest"]]}}
    config = stored(blobs, json.dumps(config).encode(), oci + "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config, "layers": [described]}
    root = stored(blobs, json.dumps(manifest).encode(), oci + "manifest.v1+json")
    root["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return described


def delayed(source, target):
    """Passes bytes on after ONE_WAY, at RATE."""
    waiting, arrived = [], threading.Condition()
    free_at = 0.0

    def read():
        while True:
            piece = source.recv(PIECE)
            with arrived:
                waiting.append((time.monotonic() + ONE_WAY, piece))
                arrived.notify()
            if not piece:
                return

    threading.Thread(target=read, daemon=True).start()
    while True:
        with arrived:
            while not waiting:
                arrived.wait()
            due, piece = waiting.pop(0)
        free_at = max(free_at, due) + len(piece) / RATE
        time.sleep(max(0, free_at - time.monotonic()))
        try:
            if not piece:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(piece)
        except OSError:
            return


def listening(path, greet):
    """A socket at `path`; `greet` gets each client."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def accept():
        while True:
            greet(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()


def delay(path, target):
    """A socket at `path` from which a far line leads to the socket `target`."""

    def lead(near):
        far = socket.socket(socket.AF_UNIX)
        far.connect(str(target))
        for ends in ((near, far), (far, near)):
            threading.Thread(target=delayed, args=ends, daemon=True).start()

    listening(path, lead)


def plain(path, size):
    """A socket at `path` that sends `size` bytes to everyone who sends one."""

    def send(client):
        client.recv(1)
        piece, left = bytes(PIECE), size
        while left > 0:
            client.sendall(piece[:left])
            left -= len(piece)
        client.close()

    listening(path, send)


def received(path):
    """Seconds until everything that the socket at `path` sends was read."""
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(path))
        stream.sendall(b"x")
        while stream.recv(PIECE):
            pass
    return time.monotonic() - began, 0.0, 0


def run(command, environment, stdin=None):
    """Seconds of wall time and of CPU, and the peak memory in MiB, of a command."""
    if stdin:
        command = ["/bin/sh", "-c", 'exec "$@" <"$0"', stdin, *command]
    with tempfile.TemporaryDirectory(prefix="imgmv-log-") as logs:
        cost = processes.run(command, environment, None, f"{logs}/log")
    if cost.status:
        raise SystemExit(f"{command} ended with {cost.status}: {cost.words}")
    return cost.wall, cost.cpu, cost.peak / MIB


def started(folder, program, ctr):
    """A containerd with its directory in `folder`."""
    address = folder / "containerd.sock"
    words = [program, "--config", "/dev/null", "--root", folder / "root", "--state", folder / "state", "--address", address]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=(folder / "containerd.log").open("w"))
    for _ in range(200):
        if subprocess.run([ctr, "--address", address, "version"], capture_output=True).returncode == 0:
            return server, address
        time.sleep(0.05)
    raise SystemExit("containerd does not start: " + (folder / "containerd.log").read_text())


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--imgmv", default=HERE / "target/release/imgmv")
    options.add_argument("--mib", type=int, default=500)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--containerd", default="containerd")
    options.add_argument("--ctr", default="ctr")
    options.add_argument("--only", default="", help="only rows with PART in their names", metavar="PART")
    options = options.parse_args()
    processes.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="imgmv-c-", dir="/tmp") as folder:
        measure(Path(folder), options)


def measure(folder, options):
    imgmv, size = str(options.imgmv), options.mib * MIB
    layer = image(folder / "layout", size)
    digest = layer["digest"]
    blob, source = folder / "layout/blobs/sha256" / digest.removeprefix("sha256:"), f"oci:{folder}/layout:1"
    server, address = started(folder, options.containerd, options.ctr)
    (folder / "bin").mkdir()
    # Under the name that imgmv looks for; docker and nerdctl of this host must not answer first.
    (folder / "bin/ctr").write_text(f'#!/bin/sh\nexec {shutil.which(options.ctr)} "$@"\n')
    (folder / "bin/ctr").chmod(0o755)
    sshd, home = host(folder, f"CONTAINERD_ADDRESS={address}")
    try:
        environment = {**os.environ, "HOME": str(home), "CONTAINERD_ADDRESS": str(address)}
        environment.pop("SSH_AUTH_SOCK", None)
        ctr = [options.ctr, "--address", str(address)]
        ssh = ["ssh", "-F", f"{home}/.ssh/config"]
        on_host = [*ssh, "node", *ctr]
        client = ["--ssh", " ".join(ssh), "-q"]
        subprocess.run([imgmv, "copy", source, f"containerd:{REF}", "--namespace", "default", "-q"], env=environment, check=True, stdout=subprocess.DEVNULL)
        far, stream, far_stream = folder / "far.sock", folder / "stream.sock", folder / "far-stream.sock"
        delay(far, address)
        plain(stream, size)
        delay(far_stream, stream)
        read = [imgmv, "copy", "--src-namespace", "default", "-q"]
        namespaces = iter(f"n{number}" for number in range(10_000))

        def written(command, stdin=None):
            """A run into a namespace of its own, whose content goes before: a shared blob would not be sent."""
            for name in subprocess.run([*ctr, "namespaces", "ls", "-q"], capture_output=True, text=True).stdout.split():
                inside = [*ctr, "--namespace", name]
                if name != "default":
                    for image_name in subprocess.run([*inside, "images", "ls", "-q"], capture_output=True, text=True).stdout.split():
                        subprocess.run([*inside, "images", "rm", "--sync", image_name], capture_output=True)
                    for held in subprocess.run([*inside, "content", "ls", "-q"], capture_output=True, text=True).stdout.split():
                        subprocess.run([*inside, "content", "rm", held], capture_output=True)
            subprocess.run([*ctr, "images", "rm", "--sync", REF], capture_output=True)
            return run([word.replace("NAMESPACE", next_name) for next_name in [next(namespaces)] for word in command], environment, stdin)

        rows = {
            "read here: imgmv": lambda: run([*read, f"containerd:{REF}", "/dev/null", "--src-address", str(address)], environment),
            "read here: ctr content get": lambda: run([*ctr, "content", "get", digest], environment),
            "read here: ctr images export": lambda: run([*ctr, "images", "export", "--all-platforms", "/dev/null", REF], environment),
            "read by ssh: imgmv": lambda: run([*read, f"ssh://node/{REF}", "/dev/null", *client[:2]], environment),
            "read by ssh: imgmv builtin": lambda: run([*read, f"ssh://node/{REF}", "/dev/null", "--ssh", "builtin"], environment),
            "read by ssh: ctr content get": lambda: run([*on_host, "content", "get", digest], environment),
            "read far: imgmv": lambda: run([*read, f"containerd:{REF}", "/dev/null", "--src-address", str(far)], environment),
            "read far: one stream": lambda: received(far_stream),
        }
        writes = {
            "write here: imgmv": lambda: written([imgmv, "copy", source, f"containerd:{REF}", "-q", "--namespace", "NAMESPACE"]),
            "write here: ctr content ingest": lambda: written([*ctr, "--namespace", "NAMESPACE", "content", "ingest", "one"], blob),
            "write by ssh: imgmv": lambda: written([imgmv, "copy", source, f"ssh://node/{REF}", *client, "--namespace", "NAMESPACE"]),
            "write by ssh: imgmv by commands": lambda: written([imgmv, "copy", source, f"ssh://node/{REF}", *client, "--namespace", "NAMESPACE", "--engine", "ctr"]),
            "write by ssh: imgmv builtin": lambda: written([imgmv, "copy", source, f"ssh://node/{REF}", "--ssh", "builtin", "-q", "--namespace", "NAMESPACE"]),
            "write by ssh: ctr content ingest": lambda: written([*on_host, "--namespace", "NAMESPACE", "content", "ingest", "one"], blob),
        }
        print(f"{options.mib} MiB, medians of {options.rounds}: seconds, MB/s, CPU seconds, MiB of memory")
        for table in (rows, writes):
            table = {name: row for name, row in table.items() if options.only in name}
            results = {name: [] for name in table}
            for _ in range(options.rounds + 1):
                for name, row in table.items():
                    results[name].append(row())
            for name, taken in results.items():
                wall, cpu, memory = (statistics.median(values) for values in zip(*taken[1:]))
                print(f"{name:34} {wall:7.2f} {size / 1e6 / wall:7.0f} {cpu:6.2f} {memory:6.0f}", flush=True)
    finally:
        for process in (sshd, server):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
