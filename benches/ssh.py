#!/usr/bin/env python3
"""What ssh costs imgmv: an image of noise to a host and from it, over the user's client and over ssh built in.

    ssh.py [--imgmv PROGRAM] [--mib N] [--rounds N]

The host is this one, behind an sshd of its own on loopback; its engine is a script that keeps nothing, so that only the
way is measured. The CPU is that of imgmv and of the ssh client it runs, not sshd's. PROGRAM is by default the one that
`cargo build --release` makes.
"""
import argparse
import os
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from weak import image

HERE = Path(__file__).resolve().parent.parent
MIB = 1 << 20
REF = "docker.io/library/bench:1"
DOCKER = """#!/bin/sh
case $1 in
version) echo 28.0.0;;
info) echo 'linux/x86_64 overlay2 []';;
save) exec cat {archive};;
*) exit 1;;
esac
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def host(folder, variables=""):
    """An sshd that sets `variables`, and a home whose ssh configuration calls it `node`. The process and the home."""
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    for key in (folder / "host_key", home / ".ssh/id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    shutil.copy(home / ".ssh/id_ed25519.pub", folder / "authorized_keys")
    port = free_port()
    host_key = (folder / "host_key.pub").read_text().strip()
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    user = os.environ.get("USER", "root")
    (home / ".ssh/config").write_text(
        f"Host node\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n  IdentitiesOnly yes\n"
        f"  IdentityFile {home}/.ssh/id_ed25519\n  UserKnownHostsFile {home}/.ssh/known_hosts\n"
    )
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nSetEnv PATH={folder}/bin:/usr/bin:/bin {variables}\n"
    )
    os.makedirs("/run/sshd", exist_ok=True)
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", folder / "sshd_config", "-E", folder / "log"])
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, home
        time.sleep(0.05)
    raise SystemExit("sshd does not start: " + (folder / "log").read_text())


def cost(command, environment):
    """Seconds of wall time, and of CPU of the command and what it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--imgmv", default=HERE / "target/release/imgmv")
    options.add_argument("--mib", type=int, default=256)
    options.add_argument("--rounds", type=int, default=3)
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgmv-ssh-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        folder = Path(folder)
        layout, _, _ = image(folder / "layout", [options.mib * MIB], 1)
        archive = folder / "image.tar"
        imgmv = str(options.imgmv)
        subprocess.run([imgmv, "copy", f"oci:{layout}:1", archive, "--as", REF, "-q"], check=True, stdout=subprocess.DEVNULL)
        (folder / "bin").mkdir()
        (folder / "bin/docker").write_text(DOCKER.format(archive=archive))
        (folder / "bin/docker").chmod(0o755)
        server, home = host(folder)
        try:
            environment = {**os.environ, "HOME": str(home)}
            environment.pop("SSH_AUTH_SOCK", None)
            print(f"{options.mib} MiB, medians of {options.rounds}: MB/s, CPU seconds")
            # A shared connection is a process of its own, whose CPU would not be seen.
            client = f"ssh -F {home}/.ssh/config -o ControlMaster=no -o ControlPath={folder}/none"
            for name, ssh in (("client", client), ("builtin", "builtin")):
                keep = ["--remote-command", "cat >/dev/null"]
                up = [imgmv, "copy", archive, "ssh://node", "--ssh", ssh, "-q", *keep]
                down = [imgmv, "copy", f"ssh://node/{REF}", "/dev/null", "--ssh", ssh, "-q"]
                for way, command in (("up", up), ("down", down)):
                    costs = [cost(command, environment) for _ in range(options.rounds)]
                    wall, cpu = (statistics.median(values) for values in zip(*costs))
                    print(f"{name:8} {way:5} {options.mib * MIB / 1e6 / wall:8.0f} {cpu:8.2f}")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
