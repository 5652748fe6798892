"""dockerd and containerd, for the two peers that are only a daemon's remote control. What the daemon burns is counted too."""
import os
import subprocess
import time
from pathlib import Path

import programs

TICKS = os.sysconf("SC_CLK_TCK")


def tree(process):
    """A process and its descendants that are alive."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [each for child in task.read_text().split() for each in tree(int(child))]
        except OSError:
            pass
    return found


def cpu_seconds(process):
    """Of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def peak_bytes(process):
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Daemon:
    def __init__(self, name, folder, client):
        self.folder, self.client = folder, client
        folder.mkdir(parents=True)
        self.socket = folder / "sock"
        self.log = open(folder / "log", "w")
        # The wrapper ends in the daemon itself, so that the process id is the daemon's.
        new = programs.NEWER / f"{name}-new"
        self.process = subprocess.Popen([str(new) if new.exists() else name, *self.arguments()], stdout=self.log, stderr=self.log)
        for _ in range(300):
            if subprocess.run(self.command("version"), capture_output=True).returncode == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{name} does not come up; {folder}/log says why")

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def mark(self):
        """Where the daemon's figures stand now; its peak is counted from here."""
        members = tree(self.process.pid)
        for member in members:
            try:
                Path(f"/proc/{member}/clear_refs").write_text("5")
            except OSError:
                pass
        return sum(map(cpu_seconds, members))

    def add(self, cost, mark):
        members = tree(self.process.pid)
        cost.cpu += sum(map(cpu_seconds, members)) - mark
        cost.peak += sum(map(peak_bytes, members))


class Docker(Daemon):
    def __init__(self, folder, client):
        super().__init__("dockerd", folder, client)

    def arguments(self):
        (self.folder / "daemon.json").write_text("{}")
        return ["--config-file", self.folder / "daemon.json", "--data-root", self.folder / "data",
                "--exec-root", self.folder / "exec", "--pidfile", self.folder / "pid", "-H", f"unix://{self.socket}",
                "--bridge=none", "--iptables=false", "--storage-driver", "overlay2"]

    def command(self, *arguments):
        return [*self.client.start, "-H", f"unix://{self.socket}", *arguments]

    def load(self, archive):
        subprocess.run(self.command("load", "-q", "-i", archive), check=True, capture_output=True)

    def forget(self):
        images = subprocess.run(self.command("image", "ls", "-q"), capture_output=True, text=True).stdout.split()
        if images:
            subprocess.run(self.command("image", "rm", "-f", *set(images)), capture_output=True)

    def kept_bytes(self):
        return 0


class Podman:
    """podman's storage. podman has no daemon. It starts itself and helpers, for which the newer one needs its wrapper."""

    def __init__(self, folder, client):
        new = programs.NEWER / "podman-new"
        self.folder, self.start = folder, [str(new)] if new.exists() else client.start
        folder.mkdir(parents=True)

    def stop(self):
        """The mount of its storage, which podman leaves."""
        subprocess.run(["umount", str(self.folder / "data/overlay")], capture_output=True)

    def arguments(self):
        return ["--root", self.folder / "data", "--runroot", self.folder / "run", "--storage-driver", "overlay",
                "--cgroup-manager", "cgroupfs", "--events-backend", "none"]

    def command(self, *arguments):
        return [*self.start, *self.arguments(), *arguments]

    def load(self, archive):
        subprocess.run(self.command("load", "-q", "-i", archive), check=True, capture_output=True)


class Containerd(Daemon):
    def __init__(self, folder, client):
        super().__init__("containerd", folder, client)

    def arguments(self):
        (self.folder / "config.toml").write_text(
            f'version = 2\nroot = "{self.folder}/data"\nstate = "{self.folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]\n'
            f'[grpc]\n  address = "{self.socket}"\n')
        return ["--config", self.folder / "config.toml"]

    def command(self, *arguments):
        return [*self.client.start, "-a", str(self.socket), *arguments]

    def forget(self):
        images = subprocess.run(self.command("images", "ls", "-q"), capture_output=True, text=True).stdout.split()
        if images:
            subprocess.run(self.command("images", "rm", "--sync", *images), capture_output=True)

    def kept_bytes(self):
        blobs = self.folder / "data/io.containerd.content.v1.content/blobs"
        return sum(path.stat().st_size for path in blobs.rglob("*") if path.is_file())
