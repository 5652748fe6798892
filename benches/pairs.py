"""What is copied from where to where, and how each program is told to. One entry of PAIRS is one part of the table."""
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

SKOPEO_PLAIN = ["--src-tls-verify=false", "--dest-tls-verify=false"]


@dataclass
class Place:
    """One run's own folder and names; nothing of it was there before."""
    folder: Path
    images: Path
    number: int
    source: str   # the registry that holds every image: host:port
    target: str   # the registry that is empty
    programs: dict
    docker: object = None
    podman: object = None
    containerd: object = None

    @property
    def out(self):
        return self.folder / "out"

    @property
    def archive(self):
        """A docker-save archive of this run's own."""
        return self.folder / "app.tar"

    @property
    def fresh(self):
        return f"fresh/{self.number}"

    def imgmv(self, *arguments):
        return [*self.programs["imgmv"].start, "copy", *arguments]

    def skopeo(self, *arguments):
        return [*self.programs["skopeo"].start, "copy", "--insecure-policy", *SKOPEO_PLAIN, *arguments]

    def crane(self, *arguments):
        return [*self.programs["crane"].start, *arguments]

    def oras(self, *arguments):
        return [*self.programs["oras"].start, "cp", "--no-tty", *arguments]


@dataclass
class Pair:
    name: str
    title: str
    commands: dict[str, Callable]
    # What the issue of the benchmark asks for: ratios to the best peer, by measure.
    goal: dict[str, float]
    result: str = ""        # "out", "target" or nothing: what is weighed afterwards
    against: str = ""       # the program that the goal speaks of, where it is not the best peer
    of: str = ""            # the pair that the goal speaks of, where it is not this one
    twice: bool = False     # the same command has run once before, with the same home
    seeded: bool = False    # the target registry holds the image already
    given: bool = False     # the run has an archive of its own
    loaded: str = ""        # the engine that has the image, for every program
    times: float = 1        # so many runs for each round asked for: short runs need more
    heavy: bool = False     # left out of a quick run
    slow: tuple = ()        # programs left out of a quick run


def registry_to_layout(image, *, every_platform=False):
    commands = {
        "imgmv": lambda at: at.imgmv(f"docker://{at.source}/{image}:1", f"oci:{at.out}:1"),
        "skopeo": lambda at: at.skopeo(*["--all"] * every_platform, f"docker://{at.source}/{image}:1", f"oci:{at.out}:1"),
        "crane": lambda at: at.crane("pull", "--format", "oci", f"{at.source}/{image}:1", at.out),
        "oras": lambda at: at.oras("--from-plain-http", "--to-oci-layout", f"{at.source}/{image}:1", f"{at.out}:1"),
    }
    if not every_platform:
        commands["ctr"] = lambda at: at.containerd.command("content", "fetch", "--plain-http", f"{at.source}/{image}:1")
    return commands


def registry_to_registry(name):
    """`name` gives the whole destination of a run."""
    return {
        "imgmv": lambda at: at.imgmv(f"docker://{at.source}/eleven:1", f"docker://{name(at)}"),
        "skopeo": lambda at: at.skopeo(f"docker://{at.source}/eleven:1", f"docker://{name(at)}"),
        "crane": lambda at: at.crane("copy", f"{at.source}/eleven:1", name(at)),
        "oras": lambda at: at.oras("--from-plain-http", "--to-plain-http", f"{at.source}/eleven:1", name(at)),
    }


LAYOUT_TO_REGISTRY = {
    "imgmv": lambda at: at.imgmv(f"oci:{at.images}/eleven:1", f"docker://{at.target}/{at.fresh}:1"),
    "skopeo": lambda at: at.skopeo(f"oci:{at.images}/eleven:1", f"docker://{at.target}/{at.fresh}:1"),
    "crane": lambda at: at.crane("push", at.images / "eleven", f"{at.target}/{at.fresh}:1"),
    "oras": lambda at: at.oras("--from-oci-layout", "--to-plain-http", f"{at.images}/eleven:1", f"{at.target}/{at.fresh}:1"),
}


def docker_load_and_push(at):
    docker, name = " ".join(at.docker.command()), f"{at.target}/{at.fresh}:1"
    return ["sh", "-ec", f"{docker} load -q -i {at.images}/eleven.tar; {docker} tag bench/eleven:1 {name}; {docker} push -q {name}"]


ARCHIVE_TO_REGISTRY = {
    "imgmv": lambda at: at.imgmv(f"docker-archive:{at.images}/eleven.tar", f"docker://{at.target}/{at.fresh}:1"),
    "skopeo": lambda at: at.skopeo(f"docker-archive:{at.images}/eleven.tar", f"docker://{at.target}/{at.fresh}:1"),
    "crane": lambda at: at.crane("push", at.images / "eleven.tar", f"{at.target}/{at.fresh}:1"),
    "docker": docker_load_and_push,
}
ARCHIVE_TO_REGISTRY_ZSTD = {
    "imgmv": lambda at: [*ARCHIVE_TO_REGISTRY["imgmv"](at), "--compress", "zstd"],
    "skopeo": lambda at: [*ARCHIVE_TO_REGISTRY["skopeo"](at), "--dest-compress-format", "zstd"],
}
# crane and docker remember nothing that spares them the compression: 8 s and 3 s.
ARCHIVE_TO_REGISTRY_AGAIN = {name: ARCHIVE_TO_REGISTRY[name] for name in ("imgmv", "skopeo")}
ARCHIVE_TO_LAYOUT = {
    "imgmv": lambda at: at.imgmv(f"docker-archive:{at.images}/eleven.tar", f"oci:{at.out}:1"),
    "skopeo": lambda at: at.skopeo("--dest-oci-accept-uncompressed-layers", f"docker-archive:{at.images}/eleven.tar", f"oci:{at.out}:1"),
    # coreutils' own sha256sum knows no SHA instructions; openssl does.
    "cp + hash": lambda at: ["sh", "-c", 'cp "$1" "$2" && openssl dgst -sha256 "$1"', "sh", at.images / "eleven.tar", at.out],
}
LAYOUT_TO_ARCHIVE = {
    "imgmv": lambda at: at.imgmv(f"oci:{at.images}/eleven:1", f"docker-archive:{at.out}:bench/eleven:1"),
    "skopeo": lambda at: at.skopeo(f"oci:{at.images}/eleven:1", f"oci-archive:{at.out}:1"),
}
ARCHIVE_TO_ARCHIVE = {
    "imgmv": lambda at: at.imgmv(f"docker-archive:{at.images}/eleven.tar", f"docker-archive:{at.out}:bench/other:2"),
    "skopeo": lambda at: at.skopeo(f"docker-archive:{at.images}/eleven.tar", f"docker-archive:{at.out}:bench/other:2"),
}
# imgmv replaces the archive by a new file; the others leave it and write a second one.
RETAG_ARCHIVE = {
    "imgmv": lambda at: [*at.programs["imgmv"].start, "tag", at.archive, "bench/other:2"],
    "skopeo": lambda at: at.skopeo(f"docker-archive:{at.archive}", f"docker-archive:{at.out}:bench/other:2"),
    "cp": lambda at: ["cp", at.archive, at.out],
}
DOCKER_TO_ARCHIVE = {
    "imgmv": lambda at: at.imgmv("--src-root", at.docker.folder / "data", "docker-dir:bench/eleven:1",
                                 f"docker-archive:{at.out}:bench/eleven:1"),
    "docker": lambda at: at.docker.command("save", "-o", at.out, "bench/eleven:1"),
}
PODMAN_TO_ARCHIVE = {
    "imgmv": lambda at: at.imgmv("--src-root", at.podman.folder / "data", "containers-storage:bench/eleven:1",
                                 f"docker-archive:{at.out}:bench/eleven:1"),
    "podman": lambda at: at.podman.command("save", "-q", "-o", at.out, "bench/eleven:1"),
}
START = {name: (lambda name: lambda at: [*at.programs[name].start, "--help"])(name)
         for name in ("imgmv", "skopeo", "crane", "oras", "docker", "ctr")}

PAIRS = [
    Pair("start", "`--help`", START, {"wall": 1.0}, times=4),
    Pair("nothing-registry", "registry to another registry, nothing to do", registry_to_registry(lambda at: f"{at.target}/eleven:1"),
         {"wall": 1.0, "requests": 2}, seeded=True, times=4),
    Pair("nothing-layout", "registry to layout, nothing to do", registry_to_layout("eleven"), {"wall": 1.0}, "out", twice=True, times=2),
    Pair("same-registry", "registry to another repository of it, 11 layers", registry_to_registry(lambda at: f"{at.source}/{at.fresh}:1"),
         {"wall": 1.0}, times=4),
    Pair("pull-sixty", "registry to layout, 60 layers", registry_to_layout("sixty"), {"wall": 1.05}, "out", times=4),
    Pair("pull-platforms", "registry to layout, an index of 3 platforms", registry_to_layout("platforms", every_platform=True),
         {"wall": 1.05}, "out", times=2),
    Pair("pull-eleven", "registry to layout, 11 layers", registry_to_layout("eleven"), {"wall": 0.9}, "out"),
    Pair("pull-big", "registry to layout, one big layer", registry_to_layout("big"), {"wall": 0.8, "cpu": 0.9}, "out", heavy=True),
    Pair("registry-registry", "registry to another registry, 11 layers", registry_to_registry(lambda at: f"{at.target}/{at.fresh}:1"),
         {"wall": 1.05}, "target"),
    Pair("push-eleven", "layout to registry, 11 layers", LAYOUT_TO_REGISTRY, {"wall": 1.05}, "target"),
    Pair("archive-registry", "docker-save archive to registry", ARCHIVE_TO_REGISTRY,
         {"wall": 0.6, "cpu": 0.6, "result": 1.1}, "target", "skopeo", times=0.6, slow=("crane", "docker")),
    Pair("archive-registry-zstd", "docker-save archive to registry, zstd", ARCHIVE_TO_REGISTRY_ZSTD,
         {"wall": 0.4}, "target", "skopeo", "archive-registry", times=0.6),
    Pair("archive-registry-again", "docker-save archive to registry, the second time", ARCHIVE_TO_REGISTRY_AGAIN,
         {"wall": 0.1}, "target", "skopeo", "archive-registry", twice=True, times=0.6),
    Pair("archive-layout", "docker-save archive to layout, kept raw", ARCHIVE_TO_LAYOUT, {"wall": 1.15}, "out", "cp + hash"),
    Pair("layout-archive", "layout to archive", LAYOUT_TO_ARCHIVE, {"wall": 1.0}, "out", "skopeo"),
    Pair("archive-archive", "archive to archive, hashed", ARCHIVE_TO_ARCHIVE, {"wall": 1.0}, "out"),
    Pair("docker-archive", "docker's directory to archive, beside docker save", DOCKER_TO_ARCHIVE, {"wall": 0.5}, "out", "docker",
         loaded="docker", times=0.6),
    Pair("podman-archive", "podman's storage to archive, beside podman save", PODMAN_TO_ARCHIVE, {"wall": 0.5}, "out", "podman",
         loaded="podman", times=0.6),
    Pair("retag-archive", "an archive re-tagged", RETAG_ARCHIVE, {"wall": 1.15}, "out", "cp", given=True),
]
