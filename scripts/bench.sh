#!/bin/bash
# npm run bench -- [--rows a,b] [--engines a,b] [--quick] [--write]: slipway beside dockerd, podman and the bare runtime.
set -eu
. "$(dirname "$0")/setup.sh"
need_root "$@"
bring bench "${engine_packages[@]}" "${test_packages[@]}" "${bench_packages[@]}"
"$here/scripts/peers.sh" bench
export PATH=$PATH:$cache/peers/usr/bin
cd "$here"
exec scripts/sandbox.sh node bench/main.ts "$@"
