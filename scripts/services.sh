#!/bin/bash
# Makes .cache/services.tar: a small Debian with nginx, redis, PostgreSQL and Python, the root file system of the services that
# the compose test runs. Fetched once; debootstrap runs the packages' scripts inside, nothing of it starts.
set -eu
. "$(dirname "$0")/setup.sh"

packages=nginx-light,redis-server,postgresql,python3,python3-psycopg2,python3-redis
tar=$cache/services.tar
[ "$(cat "$tar.stamp" 2>/dev/null)" = "$packages" ] && exit

work=$(mktemp -d "$cache/services.XXXXXX")
trap 'rm -rf "$work"' EXIT
# It becomes the root directory, which users other than root have to pass.
chmod 755 "$work"
echo 'slipway: making a Debian with services for the compose test' >&2
# Services must not be started while their packages are configured: none may use the machine's ports.
debootstrap --variant=minbase --include="$packages" "$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")" "$work" >"$cache/services.log" 2>&1 ||
  die "slipway: debootstrap failed, see $cache/services.log"
tar -C "$work" --one-file-system --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' \
  --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./dev/*' --exclude='*/libLLVM*' -cf "$tar.new" .
mv "$tar.new" "$tar"
echo "$packages" >"$tar.stamp"
