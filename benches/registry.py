"""docker-registry on the loopback address: the server that every program of the benchmark talks to."""
import json
import os
import shutil
import subprocess
import time
import urllib.request

CONFIG = """version: 0.1
log: {{accesslog: {{disabled: false}}, level: error}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "{address}"}}
"""


class Registry:
    """A registry whose storage is `folder`/data. Its folders can be filled and emptied while it runs."""

    def __init__(self, folder, port):
        self.address = f"127.0.0.1:{port}"
        self.folder = folder
        self.tree = folder / "data/docker/registry/v2"
        self.process = None

    def start(self):
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yml"
        config.write_text(CONFIG.format(root=self.folder / "data", address=self.address))
        self.log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=self.log, stderr=self.log)
        for _ in range(200):
            if self.process.poll() is not None:
                raise SystemExit(f"bench: docker-registry ended at once; {self.folder}/log says why")
            try:
                urllib.request.urlopen(f"http://{self.address}/v2/", timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit(f"bench: docker-registry does not answer on {self.address}")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()

    def requests(self):
        """How many requests it has answered."""
        time.sleep(0.02)  # the line of the last one is written after the answer
        with open(self.folder / "log") as log:
            return sum(1 for line in log if " HTTP/1." in line)

    def seed(self, layout, repository, tag="1"):
        """Puts a whole layout under a name, as if it had been pushed. Blobs are linked, not copied."""
        for blob in (layout / "blobs/sha256").iterdir():
            place = self.tree / "blobs/sha256" / blob.name[:2] / blob.name
            place.mkdir(parents=True, exist_ok=True)
            if not (place / "data").exists():
                os.link(blob, place / "data")
            self.link(repository, f"_layers/sha256/{blob.name}", blob.name)
        root = json.loads((layout / "index.json").read_text())["manifests"][0]
        self.seed_manifest(layout, repository, root)
        digest = root["digest"].split(":")[1]
        self.link(repository, f"_manifests/tags/{tag}/current", digest)
        self.link(repository, f"_manifests/tags/{tag}/index/sha256/{digest}", digest)

    def seed_manifest(self, layout, repository, descriptor):
        digest = descriptor["digest"].split(":")[1]
        self.link(repository, f"_manifests/revisions/sha256/{digest}", digest)
        for child in json.loads((layout / "blobs/sha256" / digest).read_text()).get("manifests", []):
            self.seed_manifest(layout, repository, child)

    def link(self, repository, place, digest):
        folder = self.tree / "repositories" / repository / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "link").write_text("sha256:" + digest)

    def tag(self, repository, tag="1"):
        """The digest that a tag points at, if there is such a tag."""
        link = self.tree / "repositories" / repository / "_manifests/tags" / tag / "current/link"
        return link.read_text() if link.exists() else None

    def forget(self, repository):
        shutil.rmtree(self.tree / "repositories" / repository, ignore_errors=True)

    def empty(self):
        shutil.rmtree(self.tree, ignore_errors=True)

    def stored_bytes(self):
        return sum(path.stat().st_size for path in (self.tree / "blobs").rglob("data"))
