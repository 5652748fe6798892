"""The programs that are compared: where they are, which version, and how they are started without a wrapper's cost."""
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PEERS = ("skopeo", "crane", "oras", "docker", "ctr")
# The build of `--old`; its second name shows how far two runs of one program differ.
OTHER_BUILDS = ("imgmv-old", "imgmv-old-again")
# tests/peers.sh puts newer releases here.
NEWER = Path(os.environ.get("IMGMV_PEERS_DIR", "/var/cache/imgmv-peers")) / "bin"
VERSION = {"crane": ["version"], "oras": ["version"]}


@dataclass
class Program:
    name: str
    start: list[str]  # the words before its arguments
    version: str


def version_of(name, start):
    try:
        shown = subprocess.run([*start, *VERSION.get(name, ["--version"])], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if shown.returncode not in (0, 1):
        return None
    found = re.search(r"\d+\.\d+\.\d+\S*", shown.stdout)
    return found[0].rstrip(",") if found else ""


def without_wrapper(name, path):
    """A wrapper of tests/peers.sh makes a mount namespace, which takes 5 ms; the newer suite's own loader needs none."""
    wrapper = Path(path).resolve()
    if wrapper.name != "in-newer-suite":
        return [str(path)]
    usr = wrapper.parent.parent / "suite/usr"
    loader = [str(usr / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(usr / "lib/x86_64-linux-gnu")]
    plain = name.removesuffix("-new")
    for folder in ("bin", "sbin"):
        if (usr / folder / plain).exists():
            start = [*loader, str(usr / folder / plain)]
            return start if version_of(plain, start) is not None else [str(path)]
    return [str(path)]


def find(name, given=None):
    """The newest `name` at hand, or None. `given` names a path instead."""
    places = [given] if given else [NEWER / f"{name}-new", NEWER / name, shutil.which(name)]
    for place in places:
        if place and Path(place).exists():
            start = without_wrapper(Path(place).name, place)
            version = version_of(name, start)
            if version is not None:
                return Program(name, start, version)
    return None


def find_all(imgmv, given):
    """Every program that is there, imgmv first. `given` is a map from name to path."""
    found = {}
    if Path(imgmv).exists():
        found["imgmv"] = find("imgmv", Path(imgmv).resolve())
    for name in PEERS:
        if program := find(name, given.get(name)):
            found[name] = program
    return {name: program for name, program in found.items() if program}
