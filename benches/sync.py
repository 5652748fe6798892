#!/usr/bin/env python3
"""Many images from one docker-registry to another: imgmv sync against skopeo sync and a loop of crane copy.

    sync.py [--imgmv PROGRAM] [--proxy PROGRAM] [--rounds N] [--only ROW] [--programs NAME,...] [--peer NAME=PATH]
            [--work DIR] [--json FILE]

Rows: a warm sync of 51 tags in 39 repositories, and a cold sync of 40 images that share layers, direct and with both
registries behind a proxy that delays each request by 30 ms. Every program runs once in each round, with a fresh home
and a fresh destination; the first round is not counted. Figures are medians. The requests are those of the registries'
access logs. PROGRAM are by default those that `cargo build --release --example fault_proxy --bin imgmv` makes.

The goals: the warm sync asks the source at most 51 times, apart from authentication, and takes at most 1 s; the cold
sync takes at most 0.5 of skopeo's time, two upload requests for each new blob, and reads no blob twice.
"""
import argparse
import gzip
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import measure
import programs
from bench import free_port
from delta import alone
from images import CONFIG, GZIP, INDEX, MANIFEST, MIB
from registry import Registry
from table import megabytes, seconds
from weak import Line

HERE = Path(__file__).resolve().parent.parent
COLD_IMAGES = 40
WARM_REPOSITORIES, WARM_TAGS = 39, 51
SHARED_LAYERS, BASE_LAYERS = 20, 3
OWN_LAYER_BYTES = 300 << 10
DELAY_MS = 30
STATE = Path("/var/lib")  # skopeo, as root, remembers blobs below it


# ---- the images -----------------------------------------------------------------------------------------------------

@dataclass
class Image:
    repository: str
    tag: str
    digest: str
    blobs: frozenset  # digests of configs and layers, of all platforms


class Pusher:
    """Pushes blobs and manifests; a blob that another repository has is mounted."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address)
        self.homes = {}  # by digest: the repository that got the blob first

    def ask(self, method, path, content=b"", **headers):
        self.connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise SystemExit(f"sync: {method} {path} was answered {answer.status}")
        return answer

    def blob(self, repository, content, media_type):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        home = self.homes.setdefault(digest, repository)
        start = self.ask("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={home}")
        if start.status == 202:
            place = urlsplit(start.headers["Location"])
            self.ask("PUT", f"{place.path}?{place.query}&digest={digest}", content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def manifest(self, repository, value, tag=None):
        content = json.dumps(value).encode()
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.ask("PUT", f"/v2/{repository}/manifests/{tag or digest}", content, Content_Type=value["mediaType"])
        return {"mediaType": value["mediaType"], "digest": digest, "size": len(content)}


class ImageMaker:
    """Images of one shared base layer, four other shared layers, and one layer that no other image has."""

    def __init__(self, address):
        self.pusher = Pusher(address)
        self.random = random.Random(14)
        # From 0.2 to 4 MiB; gzip without compression, since the content is noise.
        sizes = [int(MIB / 5 * 20 ** (number / (SHARED_LAYERS - 1))) for number in range(SHARED_LAYERS)]
        self.shared = [self.layer(size) for size in sizes]

    def layer(self, size):
        noise = self.random.randbytes(size)
        return gzip.compress(noise, 0, mtime=0), "sha256:" + hashlib.sha256(noise).hexdigest()

    def platform(self, repository, architecture, base, tag=None):
        """The manifest of one platform, and its blobs."""
        others = self.random.sample(self.shared[BASE_LAYERS:], 4)
        layers = [self.shared[base % BASE_LAYERS], *others, self.layer(OWN_LAYER_BYTES)]
        config = {"architecture": architecture, "os": "linux",
                  "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}}
        described = [self.pusher.blob(repository, content, GZIP) for content, _ in layers]
        config = self.pusher.blob(repository, json.dumps(config).encode(), CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        return self.pusher.manifest(repository, manifest, tag), {blob["digest"] for blob in (config, *described)}

    def image(self, number, tag="1"):
        """Every eighth image is an index of two platforms."""
        repository = f"app{number:02}"
        if number % 8:
            root, blobs = self.platform(repository, "amd64", number, tag)
        else:
            made = [self.platform(repository, architecture, number) for architecture in ("amd64", "arm64")]
            children = [child | {"platform": {"os": "linux", "architecture": architecture}}
                        for (child, _), architecture in zip(made, ("amd64", "arm64"))]
            root = self.pusher.manifest(repository, {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}, tag)
            blobs = made[0][1] | made[1][1]
        return Image(repository, tag, root["digest"], frozenset(blobs))


# ---- the commands ---------------------------------------------------------------------------------------------------

def image_list(folder, source, images):
    path = folder / "images.txt"
    path.write_text("".join(f"{source}/{image.repository}:{image.tag}\n" for image in images))
    return path


def skopeo_list(folder, source, images):
    tags = {}
    for image in images:
        tags.setdefault(image.repository, []).append(image.tag)
    path = folder / "images.yml"
    path.write_text(json.dumps({source: {"tls-verify": False, "images": tags}}))
    return path


def imgmv(start, folder, source, target, images, *options):
    return [*start, "sync", image_list(folder, source, images), f"{target}/", *options]


def skopeo(start, folder, source, target, images):
    return [*start, "sync", "--insecure-policy", "--src", "yaml", "--dest", "docker", "--all", "--dest-tls-verify=false",
            skopeo_list(folder, source, images), target]


def crane(start, folder, source, target, images):
    loop = 'list=$1 source=$2 target=$3; shift 3; while read -r image; do "$@" copy --insecure "$image" "$target${image#"$source"}" || exit; done <"$list"'
    return ["/bin/sh", "-c", loop, "crane", image_list(folder, source, images), source, target, *start]


WAYS = {
    "imgmv": ("imgmv", imgmv),
    "imgmv --no-referrers": ("imgmv", lambda *given: imgmv(*given, "--no-referrers")),
    "skopeo": ("skopeo", skopeo),
    "crane": ("crane", crane),
}


# ---- the requests ---------------------------------------------------------------------------------------------------

LINE = re.compile(r'"([A-Z]+) (\S+) HTTP/1\.[01]" (\d+) (\d+)')


@dataclass
class Calls:
    """The requests that one registry answered in one run."""
    kinds: Counter = field(default_factory=Counter)
    reads: Counter = field(default_factory=Counter)  # by blob
    read_bytes: int = 0

    def add(self, method, target, status, size):
        path, _, query = target.partition("?")
        if match := re.search(r"/blobs/(sha256:[0-9a-f]{64})$", path):
            what = "blob"
            if method == "GET" and status in (200, 206):
                self.reads[match[1]] += 1
                self.read_bytes += size
        elif "/blobs/uploads/" in path:
            what = "upload, mount" if "mount=" in query else "upload"
        else:
            what = next((part for part in ("manifests", "referrers", "tags/list") if f"/{part}" in path), "/v2/")
        self.kinds[f"{method} {what}: {status}"] += 1

    def count(self, *beginnings):
        return sum(number for kind, number in self.kinds.items() if kind.startswith(beginnings))

    @property
    def asked(self):
        """All requests but those for a login."""
        return self.kinds.total() - self.count("GET /v2/")

    @property
    def mounted(self):
        return self.count("POST upload, mount: 201")

    @property
    def uploads(self):
        """Requests of uploads, without mounts that succeeded."""
        return self.count("POST upload", "PATCH upload", "PUT upload") - self.mounted


def calls_since(registry, mark):
    time.sleep(0.05)  # the line of the last request is written after the answer
    calls = Calls()
    with open(registry.folder / "log") as log:
        log.seek(mark)
        for line in log:
            if found := LINE.search(line):
                calls.add(found[1], found[2], int(found[3]), int(found[4]))
    return calls


# ---- the rounds -----------------------------------------------------------------------------------------------------

@dataclass
class Row:
    title: str
    images: list
    is_warm: bool = False
    delay_ms: int = 0


@dataclass
class Run:
    cost: measure.Cost
    source: Calls
    target: Calls
    connections: list  # of each proxy: connections, and requests at the same time

    def figures(self):
        calls = {side: {"kinds": dict(of.kinds), "reads": dict(of.reads), "read_bytes": of.read_bytes}
                 for side, of in (("source", self.source), ("target", self.target))}
        return {"cost": asdict(self.cost), "connections": self.connections} | calls


class SyncBench:
    def __init__(self, given, found, work):
        self.given, self.programs, self.work, self.runs = given, found, work, 0
        self.state = work / "state"
        self.state.mkdir()
        subprocess.run(["mount", "--bind", self.state, STATE], check=True)
        self.source, self.target = (Registry(work / name, free_port()) for name in ("source", "target"))

    def rows(self):
        maker = ImageMaker(self.source.address)
        cold = [maker.image(number) for number in range(COLD_IMAGES)]
        second_tags = [maker.image(number, "2") for number in range(WARM_TAGS - WARM_REPOSITORIES)]
        warm = cold[:WARM_REPOSITORIES] + second_tags
        return [Row(f"warm, {WARM_TAGS} tags in {WARM_REPOSITORIES} repositories", warm, is_warm=True),
                Row(f"cold, {COLD_IMAGES} images, direct", cold),
                Row(f"cold, {COLD_IMAGES} images, {DELAY_MS} ms a request", cold, delay_ms=DELAY_MS)]

    def environment(self, home):
        home.mkdir(parents=True)
        (home / "auth.json").write_text("{}")
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
        places = ("HOME", "TMPDIR", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME")
        return kept | dict.fromkeys(places, str(home)) | {"REGISTRY_AUTH_FILE": str(home / "auth.json")}

    def run(self, row, way):
        self.runs += 1
        self.target.empty()
        if row.is_warm:
            shutil.copytree(self.source.tree, self.target.tree)
        registries = (self.source, self.target)
        lines = [Line(str(self.given.proxy), at.address, [f"latency={row.delay_ms}"]) for at in registries if row.delay_ms]
        hosts = [at.host for at in lines] or [at.address for at in registries]
        folder = self.work / f"at{self.runs}"
        env = self.environment(folder / "home")
        name, command = WAYS[way]
        command = command(self.programs[name].start, folder, *hosts, row.images)
        marks = [(at.folder / "log").stat().st_size for at in registries]
        cost = measure.run(command, env, folder, folder / "log")
        calls = [calls_since(at, mark) for at, mark in zip(registries, marks)]
        ended = [at.end() for at in lines]
        self.check(row, way, cost)
        shutil.rmtree(folder)
        for left in self.state.iterdir():
            shutil.rmtree(left)
        os.sync()
        return Run(cost, *calls, [(line["connections"], line["at_once"]) for line in ended])

    def check(self, row, way, cost):
        if cost.status:
            raise SystemExit(f"sync: {way} failed with {cost.status}: {cost.words}")
        for image in row.images:
            if self.target.tag(image.repository, image.tag) != image.digest:
                raise SystemExit(f"sync: {way} ended well, but {image.repository}:{image.tag} is another image")

    def compare(self, row, ways):
        """The counted runs of `row`, by way."""
        runs = {way: [] for way in ways}
        for _ in range(self.given.rounds + 1):
            for way in ways:
                runs[way].append(self.run(row, way))
        return {way: taken[1:] for way, taken in runs.items()}

    def measure(self):
        results = {}
        for registry in (self.source, self.target):
            registry.start()
        try:
            ways = [way for way, (name, _) in WAYS.items() if name in self.programs]
            for row in self.rows():
                if self.given.only in row.title:
                    results[row.title] = self.compare(row, ways)
                    print(shown(row, results[row.title]), flush=True)
        finally:
            for registry in (self.source, self.target):
                registry.stop()
            subprocess.run(["umount", "-l", STATE], check=False)
        return results


# ---- the tables -----------------------------------------------------------------------------------------------------

def median(runs, figure):
    return statistics.median(figure(run) for run in runs)


def shown(row, results):
    blobs = frozenset().union(*(image.blobs for image in row.images))
    places = {(image.repository, blob) for image in row.images for blob in image.blobs}
    new = max(1, len(blobs))
    wall = lambda runs: median(runs, lambda run: run.cost.wall)
    peer = wall(results["skopeo"]) if "skopeo" in results else None
    lines = [f"### {row.title}", "", f"{len(blobs)} blobs, {len(places) - len(blobs)} more places of them in other repositories.", "",
             "| program | wall | of skopeo's | min–max | CPU | peak memory | asked of the source | reads a blob: mean, most "
             "| asked of the target | upload requests a blob | mounted | connections, requests at the same time: source, target |",
             "|---" * 12 + "|"]
    for way, runs in results.items():
        walls = [run.cost.wall for run in runs]
        lines.append("| " + " | ".join([
            way, seconds(wall(runs)), f"{wall(runs) / peer:.2f}" if peer else "–",
            f"{seconds(min(walls))}–{seconds(max(walls))}",
            seconds(median(runs, lambda run: run.cost.cpu)), megabytes(median(runs, lambda run: run.cost.peak)),
            f"{median(runs, lambda run: run.source.asked):.0f}",
            f"{median(runs, lambda run: run.source.reads.total()) / new:.2f}, "
            f"{max(max(run.source.reads.values(), default=0) for run in runs)}",
            f"{median(runs, lambda run: run.target.asked):.0f}",
            f"{median(runs, lambda run: run.target.uploads) / new:.2f}",
            f"{median(runs, lambda run: run.target.mounted):.0f}",
            ", ".join(f"{connections}/{at_once}" for connections, at_once in runs[-1].connections) or "–"]) + " |")
    return "\n".join([*lines, "", *requests(results), "", *goals(row, results, new), ""])


def requests(results):
    """The requests of the last round by kind, one column a program."""
    yield "| registry, request | " + " | ".join(results) + " |"
    yield "|---" * (len(results) + 1) + "|"
    for side in ("source", "target"):
        last = [getattr(runs[-1], side).kinds for runs in results.values()]
        for kind in sorted(set().union(*last)):
            yield f"| {side}, {kind} | " + " | ".join(str(kinds[kind]) for kinds in last) + " |"


def goals(row, results, new):
    if row.is_warm:
        runs = results.get("imgmv --no-referrers", [])
        told = [("requests to the source", max((run.source.asked for run in runs), default=None), WARM_TAGS),
                ("seconds", median(runs, lambda run: run.cost.wall) if runs else None, 1.0)]
    else:
        runs, peer = results.get("imgmv", []), results.get("skopeo", [])
        wall = lambda taken: median(taken, lambda run: run.cost.wall)
        told = [("of skopeo's time", wall(runs) / wall(peer) if runs and peer else None, 0.5),
                ("upload requests a blob", max((run.target.uploads / new for run in runs), default=None), 2.0),
                ("reads of one blob", max((max(run.source.reads.values(), default=0) for run in runs), default=None), 1)]
    for what, reached, goal in told:
        if reached is not None:
            yield f"- {what}: {reached:.4g}, goal {goal}: {'met' if reached <= goal else '**missed**'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imgmv", default=HERE / "target/release/imgmv")
    parser.add_argument("--proxy", default=HERE / "target/release/examples/fault_proxy", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows with this in their title")
    parser.add_argument("--programs", default="imgmv,skopeo,crane", metavar="NAME,...", help="run these programs alone")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help="use this program for that peer")
    parser.add_argument("--work", default="/tmp", metavar="DIR", help="where the registries store; /dev/shm takes the disk out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every run")
    given = parser.parse_args()
    if not given.proxy.exists():
        sys.exit(f"sync: {given.proxy} does not exist; run cargo build --release --example fault_proxy")
    alone(sys.argv)
    measure.adopt_orphans()
    found = programs.find_all(given.imgmv, dict(each.split("=", 1) for each in given.peer))
    found = {name: program for name, program in found.items() if name in given.programs.split(",")}
    print(", ".join(f"{name} {program.version}".strip() for name, program in found.items()) + f"; medians of {given.rounds}\n")
    with tempfile.TemporaryDirectory(prefix="imgmv-sync-", dir=given.work) as work:
        results = SyncBench(given, found, Path(work)).measure()
    if given.json:
        given.json.write_text(json.dumps({title: {way: [run.figures() for run in runs] for way, runs in ways.items()}
                                          for title, ways in results.items()}, indent=1))


if __name__ == "__main__":
    main()
