#!/bin/bash
# Runs test files under another kernel: Debian's Linux 6.1 as a process (user-mode-linux), with cgroup v2 alone and with
# quotas for XFS, which many a test machine lacks. It sees the machine's own files, and has memory file systems and loop
# devices of its own. Slow: a few times the usual.
#
#   sudo scripts/other-kernel.sh test/container/disk-limit.test.ts
#
# It has no `inet` tables, so the rules for published ports are dropped: not for tests of networks.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
peers=$(readlink -f "$here/.cache/peers")

if [ "$$" -ne 1 ]; then
  [ -x "$peers/usr/bin/linux.uml" ] || { bash "$here/scripts/peers.sh" kernel && peers=$(readlink -f "$here/.cache/peers"); }
  status=$(mktemp)
  trap 'rm -f "$status"' EXIT
  "$peers/usr/bin/linux.uml" root=/dev/root rootfstype=hostfs rw "init=$here/scripts/other-kernel.sh" mem=2500M quiet \
    con=null con0=null,fd:1 con1=fd:0,fd:1 "FILES=$(IFS=,; echo "$*")" "STATUS=$status" "PATH=$PATH" </dev/null
  exit "$(cat "$status")"
fi

# From here on: process 1 of that kernel.
end() {
  echo "${1:-1}" >"$STATUS"
  echo o >/proc/sysrq-trigger
  sleep 10
}
trap 'end 1' EXIT
set +e
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for place in /dev/shm /run /mnt; do mount -t tmpfs tmpfs $place; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+cpu +memory +pids +io' >/sys/fs/cgroup/cgroup.subtree_control

modules=$(echo "$peers"/usr/lib/uml/modules/*)
for name in loop overlay ipv6 bridge veth nf_tables nft_ct nft_masq nf_nat br_netfilter; do
  line=$(grep "/$name.ko:" "$modules/modules.dep")
  for file in $(echo "${line#*:}" | tr ' ' '\n' | tac) "${line%%:*}"; do
    busybox insmod "$modules/$file" 2>/dev/null
  done
done
ip link set lo up

mkdir /run/bin /mnt/tmp
printf '#!/bin/sh\ncase "$*" in *-f*) cat >/dev/null ;; esac\n' >/run/bin/nft
chmod +x /run/bin/nft
export PATH=/run/bin:$PATH TMPDIR=/mnt/tmp HOME=/root
cd "$here" || exit
# shellcheck disable=SC2086 # several files
node --test ${FILES//,/ }
result=$?
trap - EXIT
end "$result"
