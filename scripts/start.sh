#!/bin/bash
# npm start: set-up, then slipwayd in the foreground. Everything after `--` is slipwayd's.
set -eu
. "$(dirname "$0")/setup.sh"
need_root "$@"
bring start "${engine_packages[@]}"

# Waits for the daemon, which takes over this process's id, and ends with it. It comes later so as not to delay it.
(sleep 0.5 && exec node "$here/scripts/first-image.ts" "$$" "$@") &
exec "$here/bin/slipwayd" "$@"
