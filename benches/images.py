#!/usr/bin/env python3
"""Builds the images that the benchmark copies, from Debian packages, as OCI layouts and as a docker-save archive.

    images.py FOLDER [--big-mib N]

Packages are fetched with apt-get and never installed. What is already there and made by this very recipe is kept.
"""
import argparse
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

# One line a layer, oldest first, as a Dockerfile would have added them. Names of Debian 12; a package that this release
# does not have is left out and said.
LAYERS = {
    "base": """base-files base-passwd bash bsdutils coreutils dash debconf debianutils diffutils dpkg e2fsprogs findutils
        gcc-12-base gpgv grep gzip hostname init-system-helpers libacl1 libapt-pkg6.0 libattr1 libaudit1 libblkid1 libbz2-1.0
        libc-bin libc6 libcap2 libcom-err2 libcrypt1 libdb5.3 libext2fs2 libffi8 libgcc-s1 libgcrypt20 libgmp10 libgnutls30
        libgpg-error0 libhogweed6 libidn2-0 liblz4-1 liblzma5 libmount1 libnettle8 libp11-kit0 libpam-modules libpam0g
        libpcre2-8-0 libseccomp2 libselinux1 libsmartcols1 libss2 libstdc++6 libsystemd0 libtasn1-6 libtinfo6 libudev1
        libunistring2 libuuid1 libxxhash0 libzstd1 login logsave mawk mount ncurses-base ncurses-bin passwd perl-base sed
        sysvinit-utils tar tzdata util-linux zlib1g apt iputils-ping""",
    "locale": "ca-certificates openssl libssl3 locales libicu72 fontconfig-config libfreetype6 libexpat1 libsqlite3-0 curl libcurl4",
    "perl and git": "perl perl-modules-5.36 libperl5.36 git git-man less openssh-client rsync",
    "python": """python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11 python3-numpy
        python3-scipy python3-pandas python3-pandas-lib python3-matplotlib python3-pil python3-cryptography""",
    "compiler": """gcc-12 g++-12 cpp-12 libc6-dev libstdc++-12-dev libgcc-12-dev binutils binutils-common binutils-x86-64-linux-gnu
        libbinutils libisl23 libmpfr6 linux-libc-dev make""",
    "java": "openjdk-17-jre-headless ca-certificates-java java-common",
    "node": "libnode108 nodejs npm webpack node-typescript node-undici node-babel7 node-core-js eslint",
    "llvm": "libllvm14 llvm-14-linker-tools libclang1-14 libz3-4",
    "fonts": "fonts-noto-cjk fonts-dejavu-core fonts-liberation",
    "browser": "libwebkit2gtk-4.0-37 libjavascriptcoregtk-4.0-18 libgl1-mesa-dri",
}
PLATFORMS = [("amd64", None), ("arm64", "v8"), ("arm", "v7")]
SMALL_LAYERS = 60
CREATED = "2024-01-01T00:00:00Z"
MIB = 1 << 20
CHUNK = 1 << 20

OCI = "application/vnd.oci.image."
RAW, GZIP = OCI + "layer.v1.tar", OCI + "layer.v1.tar+gzip"
MANIFEST, INDEX, CONFIG = OCI + "manifest.v1+json", OCI + "index.v1+json", OCI + "config.v1+json"


def say(text):
    print(f"images: {text}", file=sys.stderr, flush=True)


# ---- packages -------------------------------------------------------------------------------------------------------

# What is installed here is no matter: versions come from the archive alone.
NOTHING_INSTALLED = ["-o", "Dir::State::status=/dev/null", "-o", "APT::Sandbox::User=root"]


def known_packages(names):
    shown = subprocess.run(["apt-cache", *NOTHING_INSTALLED, "show", "--no-all-versions", *names], capture_output=True, text=True).stdout
    return {line.split()[1] for line in shown.splitlines() if line.startswith("Package: ")}


def fetch_packages(folder):
    """The .deb of every package of LAYERS, by name."""
    wanted = [name for names in LAYERS.values() for name in names.split()]
    known = known_packages(wanted)
    if not known:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        known = known_packages(wanted)
    absent = [name for name in wanted if name not in known]
    if absent:
        say(f"this Debian does not have {' '.join(absent)}: left out")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"fetching {len(known)} packages")
    here = {path.name.split("_")[0] for path in folder.glob("*.deb")}
    missing = [name for name in wanted if name in known and name not in here]
    if missing:
        subprocess.run(["apt-get", "download", "-qq", *NOTHING_INSTALLED, *missing], cwd=folder, check=True)
    return {path.name.split("_")[0]: path for path in folder.glob("*.deb")}


# ---- layers ---------------------------------------------------------------------------------------------------------

class Layer:
    """An uncompressed layer being written: a tar, and the digest of it."""

    def __init__(self, path):
        self.path = path
        self.names = set()
        self.file = open(path, "wb")
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.PAX_FORMAT)

    def add_package(self, deb):
        process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
        with tarfile.open(fileobj=process.stdout, mode="r|") as package:
            for member in package:
                member.name = member.name.removeprefix("./")
                if member.name in (".", "") or member.name in self.names:
                    continue
                if member.islnk():
                    member.linkname = member.linkname.removeprefix("./")
                self.add(member, package.extractfile(member) if member.isreg() else None)
        if process.wait() != 0:
            raise SystemExit(f"images: dpkg-deb could not read {deb}")

    def add(self, member, content=None):
        self.names.add(member.name)
        self.tar.addfile(member, content)

    def add_file(self, name, content, mode=0o644, xattrs=None):
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), mode, 1704067200
        member.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
        self.add(member, io.BytesIO(content))

    def add_link(self, name, target):
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.mtime = tarfile.LNKTYPE, target, 1704067200
        self.add(member)

    def close(self):
        self.tar.close()
        self.file.close()
        return self.path


def write_app_layer(layer):
    """What a last layer holds in the field: links, capabilities, deletions, and paths that ustar cannot say."""
    chance = random.Random(7)
    for number in range(400):
        layer.add_file(f"app/assets/{number:04}.bin", chance.randbytes(4096 + chance.randrange(16384)))
    for number in range(0, 400, 4):
        layer.add_link(f"app/public/{number:04}.bin", f"app/assets/{number:04}.bin")
    deep = "/".join(f"node_modules/package-with-a-long-name-{depth}" for depth in range(8))
    for number in range(50):
        layer.add_file(f"app/{deep}/lib/internal/module-{number}.js", b"module.exports = {};\n" * 40)
    layer.add_file("app/bin/server", chance.randbytes(3 * MIB), 0o755, {
        "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        "user.build": "1704067200"})
    layer.add_file("etc/ünïcode/naïve.conf", "größe = 1\n".encode())
    layer.add_file("usr/share/doc/.wh..wh..opq", b"")
    for name in ("var/cache/.wh.apt", "usr/share/.wh.man", "usr/share/perl/.wh.unicore"):
        layer.add_file(name, b"")


def file_digest(path):
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def compress(source, target):
    """As docker build does it: gzip's default level, no name and no time in the header."""
    program = ["pigz", "-n", "-6", "-c"] if shutil.which("pigz") else ["gzip", "-n", "-6", "-c"]
    with open(source, "rb") as raw, open(target, "wb") as packed:
        subprocess.run(program, stdin=raw, stdout=packed, check=True)


# ---- layouts --------------------------------------------------------------------------------------------------------

class Layout:
    """An OCI layout being written."""

    def __init__(self, path):
        self.path = path
        self.blobs = path / "blobs/sha256"
        self.blobs.mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def adopt(self, path, media_type):
        digest = file_digest(path)
        target = self.blobs / digest.split(":")[1]
        size = path.stat().st_size
        path.rename(target)
        return {"mediaType": media_type, "digest": digest, "size": size}

    def put_json(self, value, media_type):
        content = json.dumps(value, separators=(",", ":")).encode()
        digest = hashlib.sha256(content).hexdigest()
        (self.blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(content)}

    def put_image(self, layers, diff_ids, arch="amd64", variant=None):
        config = {"created": CREATED, "architecture": arch, "os": "linux",
                  "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/app/bin/server"]},
                  "rootfs": {"type": "layers", "diff_ids": diff_ids},
                  "history": [{"created": CREATED, "created_by": f"layer {number}"} for number in range(len(layers))]}
        if variant:
            config["variant"] = variant
        image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": self.put_json(config, CONFIG), "layers": layers}
        return self.put_json(image, MANIFEST)

    def name(self, root, tag="1"):
        index = {"schemaVersion": 2, "mediaType": INDEX,
                 "manifests": [root | {"annotations": {"org.opencontainers.image.ref.name": tag}}]}
        (self.path / "index.json").write_text(json.dumps(index))


def write_archive(path, layout, root, raws, name):
    """As docker 25 and later save it: a layout and a manifest.json, every layer uncompressed under its diff_id."""
    manifest = json.loads((layout.blobs / root["digest"].split(":")[1]).read_text())
    config = (layout.blobs / manifest["config"]["digest"].split(":")[1]).read_bytes()
    layers = [{"mediaType": RAW, "digest": digest, "size": raw.stat().st_size} for digest, raw in raws]
    image = json.dumps(manifest | {"layers": layers}).encode()
    image_digest = hashlib.sha256(image).hexdigest()
    blob = lambda digest: "blobs/sha256/" + digest.removeprefix("sha256:")
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": MANIFEST, "digest": "sha256:" + image_digest, "size": len(image),
        "annotations": {"io.containerd.image.name": "docker.io/" + name, "org.opencontainers.image.ref.name": "1"}}]}
    docker = [{"Config": blob(manifest["config"]["digest"]), "RepoTags": [name], "Layers": [blob(digest) for digest, _ in raws]}]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        def add(entry, size, content):
            member = tarfile.TarInfo(entry)
            member.size, member.mtime = size, 1704067200
            archive.addfile(member, content)
        add(blob(image_digest), len(image), io.BytesIO(image))
        add(blob(manifest["config"]["digest"]), len(config), io.BytesIO(config))
        for digest, raw in raws:
            with open(raw, "rb") as file:
                add(blob(digest), raw.stat().st_size, file)
        for entry, value in (("index.json", index), ("manifest.json", docker), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
            content = json.dumps(value).encode()
            add(entry, len(content), io.BytesIO(content))


# ---- the images -----------------------------------------------------------------------------------------------------

def build_eleven(folder, debs, scratch):
    """Eleven layers, and the docker-save archive of the same image."""
    layout = Layout(folder / "eleven")
    layers, raws = [], []
    for title, names in [*LAYERS.items(), ("app", "")]:
        layer = Layer(scratch / f"{len(raws):02}.tar")
        for name in names.split():
            if name in debs:
                layer.add_package(debs[name])
        if title == "app":
            write_app_layer(layer)
        raw = layer.close()
        compress(raw, scratch / "layer.gz")
        raws.append((file_digest(raw), raw))
        layers.append(layout.adopt(scratch / "layer.gz", GZIP))
        say(f"eleven: {title}: {raw.stat().st_size / 1e6:.0f} MB, {layers[-1]['size'] / 1e6:.0f} MB compressed")
    root = layout.put_image(layers, [digest for digest, _ in raws])
    layout.name(root)
    write_archive(folder / "eleven.tar", layout, root, raws, "bench/eleven:1")
    for _, raw in raws:
        raw.unlink()


def build_small_layer(layout, scratch, debs, marker):
    layer = Layer(scratch / "small.tar")
    for deb in debs:
        layer.add_package(deb)
    layer.add_file("etc/build", marker.encode())
    raw = layer.close()
    compress(raw, scratch / "small.gz")
    diff_id = file_digest(raw)
    raw.unlink()
    return layout.adopt(scratch / "small.gz", GZIP), diff_id


def build_sixty(folder, debs, scratch):
    layout = Layout(folder / "sixty")
    smallest = sorted((path for path in debs.values() if path.stat().st_size > 30_000), key=lambda path: path.stat().st_size)
    made = [build_small_layer(layout, scratch, [deb], f"{number}\n") for number, deb in enumerate(smallest[:SMALL_LAYERS])]
    layout.name(layout.put_image([layer for layer, _ in made], [diff_id for _, diff_id in made]))


def build_platforms(folder, debs, scratch):
    layout = Layout(folder / "platforms")
    base = [debs[name] for name in LAYERS["base"].split() if name in debs]
    manifests = []
    for arch, variant in PLATFORMS:
        parts = (base[:30], base[30:60], base[60:], [debs["openssl"], debs["libssl3"], debs["curl"]])
        made = [build_small_layer(layout, scratch, part, f"{arch} {number}\n") for number, part in enumerate(parts)]
        image = layout.put_image([layer for layer, _ in made], [diff_id for _, diff_id in made], arch, variant)
        platform = {"architecture": arch, "os": "linux"} | ({"variant": variant} if variant else {})
        manifests.append(image | {"platform": platform})
    layout.name(layout.put_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX))


def build_big(folder, scratch, size):
    """One layer that nothing makes smaller: gzip in stored blocks around random bytes."""
    import zlib
    layout = Layout(folder / "big")
    chance, diff_id, packer = random.Random(2024), hashlib.sha256(), zlib.compressobj(0, wbits=31)
    head = tarfile.TarInfo("model.bin")
    head.size = size
    with open(scratch / "big.gz", "wb") as packed:
        def feed(content):
            diff_id.update(content)
            packed.write(packer.compress(content))
        feed(head.tobuf(tarfile.PAX_FORMAT))
        for _ in range(size // CHUNK):
            feed(chance.randbytes(CHUNK))
        feed(bytes(1024))
        packed.write(packer.flush())
    layer = layout.adopt(scratch / "big.gz", GZIP)
    layout.name(layout.put_image([layer], ["sha256:" + diff_id.hexdigest()]))


def describe(folder):
    """What was built, for the head of the table."""
    facts = {}
    for name in ("eleven", "sixty", "platforms", "big"):
        blobs = [path.stat().st_size for path in (folder / name / "blobs/sha256").iterdir()]
        facts[name] = {"blobs": len(blobs), "bytes": sum(blobs)}
    facts["eleven.tar"] = {"bytes": (folder / "eleven.tar").stat().st_size}
    return facts


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--big-mib", type=int, default=2048, metavar="N", help="size of the one big layer (default 2048)")
    given = options.parse_args()
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest() + f" {given.big_mib}"
    made = given.folder / "made.json"
    if made.exists() and json.loads(made.read_text())["recipe"] == recipe:
        return
    debs_folder = given.folder / "debs"
    for name in ("eleven", "sixty", "platforms", "big", "scratch"):
        shutil.rmtree(given.folder / name, ignore_errors=True)
    scratch = given.folder / "scratch"
    scratch.mkdir(parents=True)
    debs = fetch_packages(debs_folder)
    say("building")
    build_sixty(given.folder, debs, scratch)
    build_platforms(given.folder, debs, scratch)
    build_eleven(given.folder, debs, scratch)
    shutil.rmtree(debs_folder)
    build_big(given.folder, scratch, given.big_mib * MIB)
    shutil.rmtree(scratch)
    made.write_text(json.dumps({"recipe": recipe, "images": describe(given.folder)}, indent=1))


if __name__ == "__main__":
    main()
