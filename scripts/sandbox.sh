#!/bin/bash
# Runs a command where it can neither disturb the machine nor be disturbed: own network with only loopback up, own
# mounts that never propagate, own process tree that ends with the command. Files and cgroups stay the machine's.
#
#   sandbox.sh COMMAND [ARGUMENT…]
#
# SIGINT and SIGTERM reach the command as SIGTERM.
set -eu
[ $# -gt 0 ] || {
  echo 'usage: sandbox.sh COMMAND [ARGUMENT…]' >&2
  exit 2
}

# Waits for child $1 although trapped signals interrupt `wait`, and leaves its exit code in $code.
await='await() { while :; do code=0; wait "$1" || code=$?; kill -0 "$1" 2>/dev/null || return 0; done; }'
eval "$await"

# bash stays as process 1 inside: it reaps what daemons under test leave behind, which node would not.
unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private -- bash -c "$await"'
  ip link set lo up
  # As on a machine with systemd: mounts reach namespaces made later, but nothing leaves this one.
  mount --make-rshared /
  # `ip netns` shares this directory with the machine otherwise.
  mkdir -p /run/netns && mount -t tmpfs netns /run/netns
  "$@" <&0 &
  child=$!
  trap "kill -TERM $child 2>/dev/null" TERM
  await "$child"
  exit "$code"
' sandbox "$@" <&0 &
outer=$!
# unshare itself ignores SIGTERM: its only child is the shell above.
trap 'kill -TERM $(cat "/proc/$outer/task/$outer/children" 2>/dev/null) 2>/dev/null || true' INT TERM
await "$outer"
exit "$code"
