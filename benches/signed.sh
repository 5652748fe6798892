#!/usr/bin/env bash
# Copies one signed image with imgmv, oras, crane and skopeo, and prints what still verifies at the destination.
#
#   benches/signed.sh [--imgmv PATH]
#
# The image has two platforms and is signed by cosign (as a bundle and as a tag) and by notation; oras attached an SBOM and
# an attestation. Needs cosign, notation, oras, crane, skopeo and docker-registry on PATH (`tests/peers.sh` installs
# them). Registries with the referrers API are `imgmv serve`, those without are docker-registry 2.8; all on loopback.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
imgmv=$here/../target/release/imgmv
[ "${1:-}" = --imgmv ] && imgmv=$(realpath "${2:?--imgmv wants a path}")
[ -x "$imgmv" ] || { echo "signed: no $imgmv; build it with cargo build --release" >&2 && exit 1; }
for program in cosign notation oras crane skopeo docker-registry; do
    command -v "$program" >/dev/null || { echo "signed: no $program on PATH" >&2 && exit 1; }
done
# The newest release counts.
newest() { command -v "$1-new" || command -v "$1"; }
oras=$(newest oras) crane=$(newest crane) skopeo=$(newest skopeo)

work=$(mktemp -d "${TMPDIR:-/tmp}/imgmv-signed.XXXXXX")
pids=()
finish() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
cd "$work"
export HOME=$work XDG_CONFIG_HOME=$work/.config COSIGN_PASSWORD=

api=127.0.0.1:7311 plain=127.0.0.1:7312 proxy=127.0.0.1:7313
"$imgmv" serve --writable --listen $api "oci:$work/api" 2>api.log & pids+=($!)
printf 'version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s}\nhttp: {addr: "%s"}\n' \
    "$work/plain" $plain >plain.yml
docker-registry serve plain.yml >plain.log 2>&1 & pids+=($!)
"$imgmv" serve --proxy=docker.io=http://$api --listen $proxy --cache="oci:$work/cache" 2>proxy.log & pids+=($!)
for host in $api $plain $proxy; do
    for _ in $(seq 50); do curl -fs "http://$host/v2/" >/dev/null && break || sleep 0.1; done
done

cosign() { command cosign "$@" >>cosign.log 2>&1; }
notation() { command notation "$@" >>notation.log 2>&1; }
signing=(--key cosign.key --yes --use-signing-config=false --tlog-upload=false --allow-http-registry --allow-insecure-registry)
verifying=(--key cosign.pub --insecure-ignore-tlog=true --allow-http-registry --allow-insecure-registry)

cosign generate-key-pair
notation cert generate-test --default imgmv.example
cat >policy.json <<'JSON'
{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],"signatureVerification":{"level":"strict"},
"trustStores":["ca:imgmv.example"],"trustedIdentities":["*"]}]}
JSON
notation policy import policy.json
echo '{}' >sbom.json
for host in $api $plain; do
    "$imgmv" copy -q "oci:$here/../fixtures/multi:1" "docker://$host/signed/app:1" >/dev/null
    digest=$("$imgmv" digest "docker://$host/signed/app:1")
    image=$host/signed/app@$digest
    cosign sign "${signing[@]}" "$image"
    cosign sign "${signing[@]}" --new-bundle-format=false "$image"
    notation sign --insecure-registry "$image"
    for type in application/spdx+json application/vnd.in-toto+json; do
        $oras attach --plain-http --artifact-type "$type" "$image" sbom.json >/dev/null
    done
done

# What verifies in the repository $1, as a cell of the table.
verified() {
    local found=()
    cosign verify "${verifying[@]}" "$1:1" && found+=(bundle)
    cosign verify "${verifying[@]}" --new-bundle-format=false "$1:1" && found+=(tag)
    local digest
    digest=$("$imgmv" digest "docker://$1:1" 2>/dev/null) || { echo "no image" && return; }
    notation verify --insecure-registry "$1@$digest" && found+=(notation)
    local discovered
    discovered=$($oras discover --plain-http --format json "$1:1" 2>/dev/null || true)
    grep -q application/spdx+json <<<"$discovered" && found+=(SBOM)
    grep -q application/vnd.in-toto+json <<<"$discovered" && found+=(attestation)
    case ${#found[@]} in
    5) echo all ;;
    0) echo nothing ;;
    *) local IFS=, && echo "${found[*]}" | sed 's/,/, /g' ;;
    esac
}

# One copy by $1 from $3 to the repository $4, along the way $2.
by_imgmv() {
    local platform=()
    case $1 in
    direct) "$imgmv" copy -q "docker://$2:1" "docker://$3:1" ;;
    layout) "$imgmv" copy -q "docker://$2:1" oci:l:1 && "$imgmv" copy -q oci:l:1 "docker://$3:1" ;;
    one) platform=(--platform linux/amd64) ;&
    archive) "$imgmv" save -q "${platform[@]}" "docker://$2:1" -o a.tar && "$imgmv" copy -q a.tar "docker://$3:1" ;;
    esac
}
by_oras() {
    case $1 in
    direct) $oras cp -r --from-plain-http --to-plain-http "$2:1" "$3:1" ;;
    layout) $oras cp -r --from-plain-http "$2:1" --to-oci-layout l:1 && $oras cp -r --from-oci-layout l:1 --to-plain-http "$3:1" ;;
    archive) $oras backup --plain-http --include-referrers "$2:1" -o a.tar && $oras restore --plain-http --input a.tar "$3:1" ;;
    one) $oras cp -r --platform linux/amd64 --from-plain-http "$2:1" --to-oci-layout l:1 &&
        $oras cp -r --from-oci-layout l:1 --to-plain-http "$3:1" ;;
    esac
}
by_crane() {
    case $1 in
    direct) $crane copy --insecure "$2:1" "$3:1" ;;
    layout) $crane pull --insecure --format oci "$2:1" l && $crane push --insecure --index l "$3:1" ;;
    archive) $crane pull --insecure "$2:1" a.tar && $crane push --insecure a.tar "$3:1" ;;
    one) $crane pull --insecure --platform linux/amd64 "$2:1" a.tar && $crane push --insecure a.tar "$3:1" ;;
    esac
}
by_skopeo() {
    local all=--all from=--src-tls-verify=false to=--dest-tls-verify=false
    case $1 in
    direct) $skopeo copy --all $from $to "docker://$2:1" "docker://$3:1" ;;
    layout) $skopeo copy --all $from "docker://$2:1" oci:l:1 && $skopeo copy --all $to oci:l:1 "docker://$3:1" ;;
    one) all=--multi-arch=system ;&
    archive) $skopeo copy $all $from "docker://$2:1" oci-archive:a.tar:1 &&
        $skopeo copy $all $to oci-archive:a.tar:1 "docker://$3:1" ;;
    esac
}

printf '| copy | imgmv | oras | crane | skopeo |\n|---|---|---|---|---|\n'
number=0
row() { # label, way, source repository, destination registry
    number=$((number + 1))
    printf '| %s' "$1"
    local program
    for program in imgmv oras crane skopeo; do
        rm -rf l a.tar
        if "by_$program" "$2" "$3" "$4/row$number/$program" >>"$program.log" 2>&1; then
            printf ' | %s' "$(verified "$4/row$number/$program")"
        else
            printf ' | fails'
        fi
    done
    printf ' |\n'
}
row 'registry to registry, both with the referrers API' direct $api/signed/app $api
row 'to a registry without the API' direct $api/signed/app $plain
row 'from a registry without the API' direct $plain/signed/app $api
row 'through a layout' layout $api/signed/app $api
row 'through an archive' archive $plain/signed/app $api
row 'one platform through an archive' one $api/signed/app $api
printf '| through `imgmv serve --proxy` | %s | | | |\n' "$(verified $proxy/signed/app)"
if [ -n "${KEEP:-}" ]; then cp ./*.log "$KEEP"; fi
