#!/usr/bin/env bash
# Sets up the programs that the interoperability tests talk to, on Debian 12, as root.
#
#   tests/peers.sh install   the peers of this Debian, from its packages
#   tests/peers.sh chroot    newer releases of the same peers, from a newer suite, beside them
#   tests/peers.sh env       `export` lines that make both findable
#   tests/peers.sh test      all of the above, then every test (arguments go to `cargo test`)
#
# Whatever is already there is left alone, so each step may be repeated at no cost. tests/peers/README.md shows how
# each peer is started. IMGMV_PEERS_DIR says where the newer suite is kept, IMGMV_PEERS_SUITE which one it is.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=${IMGMV_PEERS_DIR:-/var/cache/imgmv-peers}
suite=${IMGMV_PEERS_SUITE:-forky}

installed=(skopeo containerd docker.io docker-registry openssh-server openssh-client podman umoci runc iptables chromium
    strace zstd xz-utils bzip2 pigz ca-certificates)
# Of Debian's development suite: signing programs, which no other suite has, and the newest docker-registry. They need
# nothing else of it.
single_suite=sid
single=(cosign notation docker-registry)
newer=(skopeo crane oras containerd docker.io docker-cli podman umoci runc crun netavark iptables)
# No package needs these by name, since every whole Debian has them.
essential=(bash dash coreutils grep sed mawk findutils tar gzip bzip2 xz-utils zstd mount util-linux procps kmod libc-bin)
# Programs of the newer suite; they are reached as NAME-new, and as NAME in the folder `new`.
programs=(skopeo crane oras containerd ctr dockerd docker podman umoci runc)

say() { printf 'peers: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

need_root() { [ "$(id -u)" = 0 ] || fail "$1 needs root"; }

missing_packages() {
    local package
    for package in "${installed[@]}"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || printf '%s\n' "$package"
    done
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -gt 0 ] || return 0
    need_root install
    say "installing ${missing[*]}"
    # No daemon is to start by itself: the tests start their own, in folders of their own.
    local policy=/usr/sbin/policy-rc.d made_policy=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made_policy=$policy
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    [ -z "$made_policy" ] || rm -f "$made_policy"
}

# The mirror this machine already uses for the Debian archive itself.
mirror() {
    apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' |
        awk '$1 !~ /-/ { print $2; exit }'
}

# An apt of its own: it knows the newer suite only, and thinks that nothing is installed.
write_apt_config() {
    local apt=$1 from=$2 of=$3
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$from" "$of" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::status "/dev/null";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
}

unpack_suite() {
    local tree=$1 from package
    from=$(mirror)
    if [ -z "$from" ]; then
        apt-get update -qq
        from=$(mirror)
    fi
    [ -n "$from" ] || fail "apt has no Debian archive configured"
    say "fetching $suite"
    write_apt_config "$tree/apt" "$from" "$suite"
    APT_CONFIG=$tree/apt/apt.conf apt-get update -qq
    APT_CONFIG=$tree/apt/apt.conf apt-get install -y -qq --download-only "${newer[@]}" "${essential[@]}" >&2
    # Unpacked and not installed: no maintainer script runs, and only /usr is used.
    mkdir -p "$tree/suite"
    for package in "$tree"/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$tree/suite" --exclude './usr/share/doc/*' \
            --exclude './usr/share/man/*' --exclude './usr/share/locale/*' --exclude './usr/share/info/*'
    done
    rm -rf "$tree/apt"
    # What the maintainer scripts would have linked.
    local tool
    for tool in iptables ip6tables; do
        ln -sf "$tool-nft" "$tree/suite/usr/sbin/$tool"
        ln -sf "$tool-nft-save" "$tree/suite/usr/sbin/$tool-save"
        ln -sf "$tool-nft-restore" "$tree/suite/usr/sbin/$tool-restore"
    done
    ln -sf mawk "$tree/suite/usr/bin/awk"
}

unpack_single() {
    local tree=$1 from package
    from=$(mirror)
    say "fetching ${single[*]}"
    write_apt_config "$tree/apt" "$from" "$single_suite"
    APT_CONFIG=$tree/apt/apt.conf apt-get update -qq
    (cd "$tree/apt/archives" && APT_CONFIG=$tree/apt/apt.conf apt-get download -qq "${single[@]}" >&2)
    mkdir -p "$tree/bin"
    for package in "$tree"/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$tree/bin" --strip-components=3 ./usr/bin
    done
    mv "$tree/bin/docker-registry" "$tree/bin/docker-registry-new"
    rm -rf "$tree/apt"
}

# Each program runs with the newer suite's /usr over the machine's, in a mount namespace of its own: paths outside /usr,
# the network, and the process id stay what they were, and helpers (runc, conmon, shims) are the newer suite's too.
write_wrappers() {
    local tree=$1 program
    mkdir -p "$tree/bin" "$tree/new" "$tree/suite/usr/local"
    cat >"$tree/bin/in-newer-suite" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
name=${0##*/}
exec unshare --mount --propagation slave /bin/sh -c '
    mount --bind /usr/local "$1/local" && mount --rbind "$1" /usr || exit 125
    program=$2
    shift 2
    PATH=/usr/sbin:/usr/bin
    exec "$(command -v "$program")" "$@"' "$name" "${here%/*}/suite/usr" "${name%-new}" "$@"
WRAPPER
    chmod 755 "$tree/bin/in-newer-suite"
    for program in "${programs[@]}"; do
        ln -sf in-newer-suite "$tree/bin/$program-new"
        ln -sf ../bin/in-newer-suite "$tree/new/$program"
    done
    # These exist in the newer suite only.
    ln -sf in-newer-suite "$tree/bin/crane"
    ln -sf in-newer-suite "$tree/bin/oras"
}

# A change of what the tree is made of makes it anew.
wanted() {
    printf '%s\n' "$suite" "${newer[*]}" "${essential[*]}" "${programs[*]}" "$single_suite" "${single[*]}"
    declare -f unpack_suite unpack_single write_wrappers | sha256sum
}

make_chroot() {
    if [ -f "$peers/made" ] && [ "$(cat "$peers/made")" = "$(wanted)" ]; then return 0; fi
    need_root chroot
    mkdir -p "$(dirname "$peers")"
    exec 9>"$peers.lock"
    flock 9
    if [ ! -f "$peers/made" ] || [ "$(cat "$peers/made")" != "$(wanted)" ]; then
        rm -rf "$peers.making"
        mkdir "$peers.making"
        unpack_suite "$peers.making"
        write_wrappers "$peers.making"
        unpack_single "$peers.making"
        wanted >"$peers.making/made"
        rm -rf "$peers"
        mv "$peers.making" "$peers"
        say "newer peers are in $peers/bin"
    fi
    exec 9>&-
}

print_env() {
    cat <<ENV
export IMGMV_PEERS_DIR='$peers'
export IMGMV_REQUIRE_PEERS=1
export PATH='$peers/bin':"\$PATH"
ENV
}

run_tests() {
    install_packages
    make_chroot
    eval "$(print_env)"
    cd "$here/.."
    exec cargo test "$@"
}

case ${1-} in
install) install_packages ;;
chroot) make_chroot ;;
env) print_env ;;
test) run_tests "${@:2}" ;;
*) fail "usage: tests/peers.sh install|chroot|env|test [ARGUMENT OF cargo test]..." ;;
esac
