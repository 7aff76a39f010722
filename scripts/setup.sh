# Sourced by start.sh, test.sh and bench.sh. Brings what the engine and its tests need: Debian packages, npm packages,
# Node.js 24. Nothing is done, and nothing slow is asked, when everything was there at the last look.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=$here/.cache
machine=$(uname -m)

# What the engine runs or calls; README names each with its reason.
engine_packages=(crun runc conmon tini nftables busybox-static iproute2 procps ca-certificates zstd xz-utils bzip2 pigz)
# igzip exists for these two only; without it layers are inflated by Node.
case $machine in x86_64 | aarch64) engine_packages+=(isal) ;; esac
# What the tests add. docker-registry and docker.io would start services when installed: peers.sh unpacks them instead.
test_packages=(apache2-utils openssl debootstrap python3 python3-docker docker-compose util-linux curl xfsprogs iptables)
# What dockerd and podman call when the benchmark runs them.
bench_packages=(iptables)

die() {
  echo "$*" >&2
  exit 1
}

# npm before 9 runs scripts as the owner of the folder, even under sudo: take the right back.
need_root() {
  [ "$(id -u)" -eq 0 ] && return
  command -v sudo >/dev/null && sudo -n true 2>/dev/null && exec sudo --preserve-env=PATH "$0" "$@"
  die "slipway: must be run as root (try: sudo npm ${npm_lifecycle_event:-start})"
}

# True when the stamp $1 was written for the same inputs: the lock file, the package database and the list of packages.
stamp_text() {
  echo "$(cksum <"$here/package-lock.json") $(stat -c '%Y %s' /var/lib/dpkg/status) $machine ${*:2}"
}
is_fresh() {
  [ -d "$here/node_modules" ] && [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$(stamp_text "$@")" ]
}
freshen() {
  mkdir -p "$cache"
  stamp_text "$@" >"$cache/$1.stamp.new"
  mv "$cache/$1.stamp.new" "$cache/$1.stamp"
}

# Installs those of the named Debian packages that are missing, without their recommendations.
bring_packages() {
  local missing=() name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "slipway: please install: ${missing[*]}"
  echo "slipway: installing ${missing[*]}" >&2
  install_packages "${missing[@]}" || { apt-get update -q >&2 && install_packages "${missing[@]}"; } ||
    die "slipway: could not install ${missing[*]}"
}
install_packages() {
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" >&2
}

bring_npm_packages() {
  local mark=$here/node_modules/.slipway-lock
  cmp -s "$here/package-lock.json" "$mark" && return
  command -v npm >/dev/null || die 'slipway: npm is missing; install Node.js 20 or newer first'
  # A tree that npm already brought to this very lock file needs no second installation.
  if ! (cd "$here" && npm ls --all >/dev/null 2>&1); then
    echo 'slipway: installing npm packages' >&2
    # Not `npm ci`: it insists on packages of foreign platforms that not every mirror has. Versions are the lock file's
    # all the same. No package of ours needs its install script.
    (cd "$here" && npm install --no-save --ignore-scripts --no-audit --no-fund >&2) ||
      die 'slipway: npm install failed'
  fi
  cp "$here/package-lock.json" "$mark"
}

# Usage: bring start|test|bench PACKAGE…
bring() {
  if ! is_fresh "$@"; then
    bring_packages "${@:2}"
    bring_npm_packages
    freshen "$@"
  fi
  # Debian keeps half of it in sbin, which a plain user's PATH (and so sudo's, sometimes) lacks.
  PATH=$PATH:/usr/sbin:/sbin
  local node
  node=$("$here/bin/slipwayd" --which-node) || exit 1
  PATH=$(dirname "$node"):$PATH
  export PATH
}
