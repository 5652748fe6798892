#!/usr/bin/env python3
"""Copies the benchmark's images with imgmv and with its peers, in turn, and prints what each copy cost.

A round runs every program once, A B C, so that a busy minute of the machine falls on all. The first round is a warm-up
under strace, which counts the bytes put into files and nothing else. benches/README.md says what is measured and how.
"""
import argparse
import atexit
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import daemon
import measure
import programs
import table
from pairs import PAIRS, Place
from registry import Registry

ALONE = os.environ.get("IMGMV_BENCH_ALONE") == "1"  # the loopback device and the mounts are ours: benches/run.sh
CACHES = Path("/var/lib/containers")  # where skopeo, as root, remembers blobs


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def raise_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Bench:
    def __init__(self, given, found):
        self.work, self.images, self.programs = given.work / "run", given.work / "images", found
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        atexit.register(shutil.rmtree, self.work, ignore_errors=True)
        self.source = Registry(self.work / "source", free_port())
        self.target = Registry(self.work / "target", free_port())
        for registry in (self.source, self.target):
            registry.start()
            atexit.register(registry.stop)
        for image in ("eleven", "sixty", "platforms", "big"):
            self.source.seed(self.images / image, image)
        self.daemons, self.runs = {}, 0
        self.hide_caches()

    def hide_caches(self):
        """This machine's own memory of blobs is neither used nor touched."""
        self.caches = self.work / "caches"
        self.caches.mkdir()
        if ALONE and CACHES.is_dir():
            subprocess.run(["mount", "--bind", str(self.caches), str(CACHES)], check=True)
            atexit.register(subprocess.run, ["umount", str(CACHES)])

    def start_daemon(self, name):
        kind = {"docker": daemon.Docker, "ctr": daemon.Containerd}[name]
        if name not in self.daemons:
            self.daemons[name] = kind(self.work / name, self.programs[name])
            atexit.register(self.daemons[name].stop)
        return self.daemons[name]

    def environment(self, place):
        home = place.folder / "home"
        (home / "docker").mkdir(parents=True)
        (home / "tmp").mkdir()
        (home / "auth.json").write_text("{}")
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
        return kept | {"HOME": str(home), "TMPDIR": str(home / "tmp"), "DOCKER_CONFIG": str(home / "docker"),
                       "REGISTRY_AUTH_FILE": str(home / "auth.json"), "XDG_RUNTIME_DIR": str(home)}

    def programs_for(self, name):
        """Another build of imgmv takes imgmv's place in its commands."""
        return self.programs | {"imgmv": self.programs[name]} if name in programs.OTHER_BUILDS else self.programs

    def run_once(self, pair, name, runner):
        """One run in a place of its own; what it made is weighed and removed, outside the time that counts."""
        self.runs += 1
        helper = self.start_daemon(name) if name in ("docker", "ctr") and pair.name != "start" else None
        place = Place(self.work / f"at{self.runs}", self.images, self.runs, self.source.address, self.target.address,
                      self.programs_for(name), **({"docker": helper} if name == "docker" else {"containerd": helper}))
        place.folder.mkdir()
        env, log = self.environment(place), place.folder / "log"
        command = pair.commands["imgmv" if name in programs.OTHER_BUILDS else name](place)
        if pair.seeded:
            self.target.seed(self.images / "eleven", "eleven")
        if pair.given:
            shutil.copyfile(self.images / "eleven.tar", place.archive)
        if pair.twice:
            measure.run(command, env, place.folder, log)
        asked = self.source.requests() + self.target.requests()
        mark = helper.mark() if helper else 0
        cost = runner(command, env, place.folder, log)
        if helper:
            helper.add(cost, mark)
            cost.written = None  # the daemon's writing is not traced
        if not ALONE:
            cost.wire = None  # others use the same loopback device
        cost.requests = self.source.requests() + self.target.requests() - asked
        cost.result = self.weigh(pair, place, helper)
        self.clean(place, helper)
        return cost

    def weigh(self, pair, place, helper):
        if pair.result == "target":
            return self.target.stored_bytes()
        if pair.result == "out" and helper:
            return helper.kept_bytes()
        if place.out.is_dir():
            return sum(path.stat().st_size for path in place.out.rglob("*") if path.is_file())
        made = place.out if place.out.exists() else place.archive
        return made.stat().st_size if made.exists() else 0

    def clean(self, place, helper):
        shutil.rmtree(place.folder, ignore_errors=True)
        self.target.empty()
        self.source.forget(place.fresh)
        if helper:
            helper.forget()
        for left in self.caches.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        os.sync()

    def compare(self, pair, names, rounds):
        """The pair's measured costs, by program: a traced one and the counted ones. A program that fails is left out."""
        costs = {}
        for name in names:
            if cost := self.attempt(pair, name, measure.run_traced if shutil.which("strace") else measure.run):
                costs[name] = {"traced": cost, "counted": []}
        for _ in range(rounds):
            for name in list(costs):
                if cost := self.attempt(pair, name, measure.run):
                    cost.written = costs[name]["traced"].written
                    costs[name]["counted"].append(cost)
                else:
                    costs.pop(name)
        return costs

    def attempt(self, pair, name, runner):
        try:
            cost = self.run_once(pair, name, runner)
        except RuntimeError as failure:
            say(f"{pair.name}: {name} is left out: {failure}")
            return None
        if cost.status == 0:
            return cost
        say(f"{pair.name}: {name} failed with {cost.status} and is left out: {cost.words.strip()[-300:]}")
        return None


def parse():
    names = [pair.name for pair in PAIRS]
    options = argparse.ArgumentParser(prog="benches/run.sh", description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, required=True, metavar="DIR",
                         help="where images and results go; images are kept there for the next time (default: a temporary folder)")
    options.add_argument("--imgmv", metavar="PATH", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release/imgmv")
    options.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help="use this program for that peer")
    options.add_argument("--old", metavar="PATH", help="another build of imgmv, run twice a round: the second shows the noise")
    options.add_argument("--only", metavar="NAME,…", help="run these programs alone")
    options.add_argument("--pairs", metavar="NAME,…", help=", ".join(names))
    options.add_argument("--rounds", type=int, default=None, help="counted rounds; short pairs run several times as many (default 5)")
    options.add_argument("--quick", action="store_true", help="2 rounds, without the heaviest pairs")
    options.add_argument("--json", type=Path, metavar="FILE", help="every figure of every run")
    options.add_argument("--big-mib", metavar="N", help="size of the one big layer (default 2048)")
    given = options.parse_args()
    wanted = given.pairs.split(",") if given.pairs else [pair.name for pair in PAIRS if not (given.quick and pair.heavy)]
    if unknown := set(wanted) - set(names):
        options.error(f"no such pair: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    given.pairs = [pair for pair in PAIRS if pair.name in wanted]
    given.rounds = given.rounds or (2 if given.quick else 5)
    return given


def main():
    given = parse()
    if ALONE:
        raise_loopback()
    measure.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped and the folder removed
    found = programs.find_all(given.imgmv, dict(each.split("=", 1) for each in given.peer))
    if given.old:
        found |= {name: program for name in programs.OTHER_BUILDS if (program := programs.find("imgmv", Path(given.old).resolve()))}
    if given.only:
        found = {name: program for name, program in found.items() if name in given.only.split(",")}
    if "imgmv" not in found:
        say(f"no imgmv at {given.imgmv}: the peers alone")
    bench = Bench(given, found)
    head = table.head(found, json.loads((given.work / "images/made.json").read_text())["images"], given.work)
    print(head, flush=True)
    results = {}
    for pair in given.pairs:
        say(pair.title)
        names = [name for name in (*pair.commands, *programs.OTHER_BUILDS)
                 if name in found or name not in (*programs.PEERS, *programs.OTHER_BUILDS, "imgmv") if not (given.quick and name in pair.slow)]
        rounds = given.rounds if given.quick else round(given.rounds * pair.times)
        results[pair.name] = bench.compare(pair, names, max(1, rounds))
        print(table.part(pair, results), flush=True)
    if "imgmv" in found:
        print(table.goals(given.pairs, results))
    if given.old:
        print(table.other_build(given.pairs, results))
    if given.json:
        given.json.write_text(json.dumps({"head": head, "pairs": {
            name: {program: {"traced": asdict(both["traced"]), "counted": [asdict(cost) for cost in both["counted"]]}
                   for program, both in costs.items()} for name, costs in results.items()}}, indent=1))


if __name__ == "__main__":
    main()
