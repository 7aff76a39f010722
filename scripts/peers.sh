#!/bin/bash
# Unpacks Debian packages into .cache/peers without installing them, so that no service of theirs ever starts.
#
#   peers.sh test    docker CLI and dockerd 20.10, docker-registry, for the tests
#   peers.sh bench   dockerd 20.10 and podman 4.3 with all they need, for the benchmark
#   peers.sh kernel  a Linux that runs as a process, for other-kernel.sh
set -eu
. "$(dirname "$0")/setup.sh"

root=$cache/peers
case ${1-} in
test) wanted=(docker.io docker-registry containerd tini) ;;
bench) wanted=(docker.io docker-registry containerd tini podman golang-github-containers-common) ;;
kernel) wanted=(user-mode-linux) ;;
*) die 'usage: peers.sh test|bench|kernel' ;;
esac
stamp=$cache/peers-$1.stamp
[ -d "$root" ] && [ "$(cat "$stamp" 2>/dev/null)" = "${wanted[*]}" ] && exit

# For dockerd and podman also what these depend on and the machine lacks, as apt itself works it out. Upgrades of installed packages
# (lines with a bracket) are left alone.
closure() {
  if [ "$1" = kernel ]; then
    printf '%s\n' "${wanted[@]}"
  else
    apt-get -s install --no-install-recommends "${wanted[@]}" | awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }'
    printf '%s\n' "${wanted[@]}"
  fi | sort -u
}
fetch() {
  local names
  names=$(closure "$1") || return
  # shellcheck disable=SC2086 # one word per package
  apt-get -o APT::Sandbox::User=root download -q $names >&2
}

work=$(mktemp -d "$cache/peers.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
fetch "$1" || { apt-get update -q >&2 && rm -f -- *.deb && fetch "$1"; } || die "slipway: could not download ${wanted[*]}"
mkdir -p "$root"
for deb in *.deb; do dpkg-deb -x "$deb" "$root"; done
echo "${wanted[*]}" >"$stamp"
