#!/usr/bin/env bash
# Copies realistic images with imgmv and with every peer that is installed, in turn, and prints what each copy cost.
#
#   benches/run.sh [--work DIR] [--imgmv PATH] [--pairs NAME,…] [--rounds N] [--quick] [--json FILE]
#
# Needs python3, docker-registry, pigz or gzip, and Debian's apt-get for the images; strace, openssl and root make it count
# more. Without --work everything is made in a temporary folder and removed. `benches/run.sh --help` shows every option.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONDONTWRITEBYTECODE=1

fail() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

work=
images=()
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) exec python3 "$here/bench.py" --help ;;
    --work) work=${2:?--work wants a folder} && shift ;;
    --work=*) work=${1#*=} ;;
    --big-mib) images=(--big-mib "${2:?--big-mib wants a number}") && shift ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
for program in python3 docker-registry apt-get dpkg-deb gzip; do
    command -v "$program" >/dev/null || fail "no $program on PATH"
done
if [ -z "$work" ]; then
    work=$(mktemp -d "${TMPDIR:-/tmp}/imgmv-bench.XXXXXX")
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
work=$(realpath "$work")

# One at a time in one folder.
exec 9>"$work/lock"
flock -n 9 || fail "another benchmark is running in $work"
python3 "$here/images.py" "$work/images" ${images[@]+"${images[@]}"}

# In a network and mounts of its own nobody else's bytes are counted, and nobody's caches are used.
alone=()
for way in "unshare --net --mount --propagation private" "unshare --map-root-user --net --mount --propagation private"; do
    if $way true 2>/dev/null; then
        read -ra alone <<<"env IMGMV_BENCH_ALONE=1 $way"
        break
    fi
done
[ "${#alone[@]}" -gt 0 ] || printf 'bench: no network of its own: bytes on the wire are not counted\n' >&2
${alone[@]+"${alone[@]}"} python3 "$here/bench.py" --work "$work" ${arguments[@]+"${arguments[@]}"} 9>&-
