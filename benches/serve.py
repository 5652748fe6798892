#!/usr/bin/env python3
"""imgmv serve beside docker-registry and nginx: one large blob and many small ones, pushed and pulled by curl.

Wall time is the client's; CPU and peak memory are the server's own. A round runs every server once, the first round is not
counted, medians of the rest. nginx (where it is on the PATH) only gives: it serves the blobs as files.
"""
import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from daemon import cpu_seconds, peak_bytes, tree

PARALLEL = 16  # connections of the small blobs


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--imgmv", default="target/release/imgmv", type=Path)
    options.add_argument("--work", type=Path, help="where blobs and storage lie, all on one disk [a folder in /dev/shm]")
    options.add_argument("--large", type=int, default=1024, metavar="MB")
    options.add_argument("--small", type=int, default=500, metavar="N", help="blobs of 20 kB")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="imgmv-serve-", dir=chosen.work or "/dev/shm"))
    try:
        bench(chosen, folder)
    finally:
        shutil.rmtree(folder)


def bench(chosen, folder):
    blobs = folder / "blobs"
    blobs.mkdir()
    large = made(blobs, chosen.large << 20)
    small = [made(blobs, 20_000) for _ in range(chosen.small)]
    costs = {}
    for number in range(chosen.rounds + 1):
        for name, start in servers(chosen, folder, blobs).items():
            for task, cost in one_round(start, blobs, large, small).items():
                if number:
                    costs.setdefault((task, name), []).append(cost)
    print(f"{'':28}{'wall s':>10}{'cpu s':>10}{'peak MB':>10}")
    for (task, name), several in sorted(costs.items()):
        wall, cpu, peak = (statistics.median(figures) for figures in zip(*several))
        print(f"{task:16}{name:12}{wall:10.3f}{cpu:10.2f}{peak / 1e6:10.1f}")


def made(folder, size):
    """A blob of random bytes; its digest."""
    bytes_ = os.urandom(size)
    digest = hashlib.sha256(bytes_).hexdigest()
    (folder / digest).write_bytes(bytes_)
    return digest


def servers(chosen, folder, blobs):
    """What starts each server in an empty place, on a port of its own: its process, address, and whether it takes pushes."""
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()

    def imgmv():
        command = [chosen.imgmv, "serve", f"oci:{store}/imgmv", "--writable", "--log", "none", "--listen", "127.0.0.1:5971"]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL), "127.0.0.1:5971", "/v2/{repo}/blobs/sha256:{digest}"

    def registry():
        config = store / "registry.yml"
        config.write_text("version: 0.1\nlog: {accesslog: {disabled: true}, level: error}\n"
                          f"storage: {{filesystem: {{rootdirectory: {store}/registry}}}}\nhttp: {{addr: 127.0.0.1:5972}}\n")
        command = ["docker-registry", "serve", config]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return process, "127.0.0.1:5972", "/v2/{repo}/blobs/sha256:{digest}"

    def nginx():
        config = store / "nginx.conf"
        config.write_text(f"daemon off; pid {store}/pid; error_log /dev/null; worker_processes auto; user root;\n"
                          "events { worker_connections 1024; }\nhttp { access_log off; sendfile on; "
                          f"server {{ listen 127.0.0.1:5973; root {blobs}; }} }}\n")
        command = ["nginx", "-p", store, "-c", config]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL), "127.0.0.1:5973", "/{digest}"

    all_ = {"imgmv": imgmv, "registry": registry, "nginx": nginx}
    there = {"imgmv": True, "registry": shutil.which("docker-registry"), "nginx": shutil.which("nginx")}
    return {name: start for name, start in all_.items() if there[name]}


def one_round(start, blobs, large, small):
    process, address, path = start()
    url = f"http://{address}{path}".format
    try:
        wait(address)
        costs = {}

        def measured(task, work):
            before, began = cpu(process), time.monotonic()
            work()
            costs[task] = (time.monotonic() - began, cpu(process) - before, peak(process))

        if "{repo}" in path:
            measured("push large", lambda: push(address, blobs, "large", [large]))
            measured("push small", lambda: push(address, blobs, "small", small))
        measured("pull large", lambda: pull([url(repo="large", digest=large)]))
        measured("pull small", lambda: pull([url(repo="small", digest=digest) for digest in small]))
        return costs
    finally:
        process.terminate()
        process.wait()


def push(address, blobs, repo, digests):
    """Begins all uploads, then sends them: POST and PUT, as most clients do."""
    base = f"http://{address}/v2/{repo}/blobs/uploads/"
    lines = "".join(f'next\nrequest = POST\nurl = "{base}"\noutput = /dev/null\nwrite-out = "%header{{location}}\\n"\n'
                    for _ in digests).removeprefix("next\n")
    found = curl(lines, parallel=False).split()
    puts = []
    for location, digest in zip(found, digests, strict=True):
        location = location if "://" in location else f"http://{address}{location}"
        mark = "&" if "?" in location else "?"
        puts.append(f'url = "{location}{mark}digest=sha256:{digest}"\nupload-file = "{blobs / digest}"\noutput = /dev/null\n')
    curl("next\n".join(puts))


def pull(urls):
    curl("next\n".join(f'url = "{url}"\noutput = /dev/null\n' for url in urls))


def curl(config, parallel=True):
    several = ["--parallel", "--parallel-max", str(PARALLEL)] if parallel else []
    command = ["curl", "--no-progress-meter", "--fail", *several, "--config", "-"]
    return subprocess.run(command, input=config, text=True, stdout=subprocess.PIPE, check=True).stdout


def cpu(process):
    return sum(cpu_seconds(each) for each in tree(process.pid))


def peak(process):
    return sum(peak_bytes(each) for each in tree(process.pid))


def wait(address):
    for _ in range(200):
        if subprocess.run(["curl", "--silent", "--output", "/dev/null", f"http://{address}/"]).returncode == 0:
            return
        time.sleep(0.02)
    raise SystemExit(f"serve: nothing listens on {address}")


if __name__ == "__main__":
    main()
