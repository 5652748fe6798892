"""One program run from start to end as a process of its own, and what it cost.

The kernel hands a parent's peak memory on to the program that it starts, so python starts a small shell, the shell forks
the program and ends, and python, as the reaper of orphans, collects the program with its own figures.
"""
import ctypes
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass, field

PR_SET_CHILD_SUBREAPER = 36
LAUNCH = '''exec 3<&0
{ read -r go <&3; exec "$@" 3<&-; } </dev/null >"$OUT" 2>"$ERR" &
echo $!'''
# Whatever puts bytes into a file that was opened by name.
WRITES = "write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,splice"
LONGEST_RUN = 300  # seconds, after which a program is taken to hang


@dataclass
class Cost:
    wall: float = 0.0        # seconds
    cpu: float = 0.0         # seconds, user and system, of the program and of the daemon that works for it
    peak: int = 0            # bytes of memory
    wire: int | None = None  # bytes that crossed the loopback device, both ways, headers included
    requests: int = 0        # that the registries answered
    written: int | None = None  # bytes put into files; known in traced runs only
    result: int = 0          # bytes of what is there afterwards
    status: int = 0
    words: str = field(default="", repr=False)  # what a failed program said


def adopt_orphans():
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def loopback_bytes():
    with open("/proc/net/dev") as file:
        for line in file:
            name, _, figures = line.partition(":")
            if name.strip() == "lo":
                return int(figures.split()[0])
    return 0


def launch(argv, env, cwd, log):
    """The program's process id and the pipe whose first line lets it go."""
    held, go = os.pipe()
    env = env | {"OUT": str(log) + ".out", "ERR": str(log) + ".err"}
    shell = subprocess.run(["/bin/sh", "-c", LAUNCH, "launch", *map(str, argv)], stdin=held, stdout=subprocess.PIPE,
                           env=env, cwd=cwd, text=True, check=True)
    os.close(held)
    return int(shell.stdout), go


def run(argv, env, cwd, log):
    """Runs `argv` to its end. `log` is a path that .out and .err are appended to."""
    process, go = launch(argv, env, cwd, log)
    watchdog = threading.Timer(LONGEST_RUN, os.kill, (process, 9))
    watchdog.start()
    before = loopback_bytes()
    start = time.perf_counter()
    os.write(go, b"\n")
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - start
    watchdog.cancel()
    os.close(go)
    cost = Cost(wall=wall, cpu=usage.ru_utime + usage.ru_stime, peak=usage.ru_maxrss * 1024, wire=loopback_bytes() - before,
                status=os.waitstatus_to_exitcode(status))
    if cost.status != 0:
        with open(str(log) + ".err", errors="replace") as file:
            cost.words = file.read()[-2000:]
    return cost


def run_traced(argv, env, cwd, log):
    """The same under strace, to count the bytes put into files. Its times are worth nothing."""
    trace = str(log) + ".trace"
    cost = run(["strace", "-f", "-y", "-s0", "-qq", "--seccomp-bpf", "-e", "trace=" + WRITES, "-e", "signal=none", "-o", trace,
                *argv], env, cwd, log)
    cost.written = written_bytes(trace)
    return cost


CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (\d+)$")
RESUMED = re.compile(r"\d+ +<\.\.\. \w+ resumed>(.*)$")
OPEN_FILE = re.compile(r"\d+<([^>]*)>")
NO_FILE = re.compile(r"[^/]|/proc/|/dev/(?!shm/)")  # a socket, a pipe, a device
WRITTEN = {"copy_file_range": -1, "splice": -1}  # which of the call's files is written, where it is not the first


def written_bytes(trace):
    total, cut = 0, {}
    with open(trace, errors="replace") as file:
        for line in file:
            line = line.rstrip("\n")
            process = line.split(" ", 1)[0]
            if line.endswith("<unfinished ...>"):
                cut[process] = line.removesuffix("<unfinished ...>")
                continue
            if resumed := RESUMED.match(line):
                line = cut.pop(process, "") + resumed[1].lstrip()
            if call := CALL.match(line):
                name, arguments, result = call.groups()
                files = OPEN_FILE.findall(arguments)
                if files and not NO_FILE.match(files[WRITTEN.get(name, 0)]):
                    total += int(result)
    return total
