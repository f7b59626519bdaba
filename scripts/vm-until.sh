#!/usr/bin/env bash
# The short hardware tests in the virtual machine, if they can be done until then: vm-until.sh UNIX_TIME.
# For continuous integration, which has a limit of time. Exit status 1: a test failed. What this machine cannot do (no
# root, no QEMU, no Debian mirror) or has no time for is left out, and said so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin"

until=${1:?"usage: vm-until.sh UNIX_TIME"}
BUILT_S=840    # what it takes, about, on two cores without KVM
UNBUILT_S=1200 # ... when the machine's disk has to be made first
SPACE_KIB=$((8 << 20))

left_out() {
    printf '%s\n' "vm-test: LEFT OUT: $1"
    exit 0
}

[[ $(uname -m) == x86_64 ]] || left_out "it wants an amd64 host"
[[ $(id -u) -eq 0 ]] || sudo -n true 2>/dev/null || left_out "it needs root"

need_s=$UNBUILT_S
[[ -f .cache/vm/disk.img.made ]] && need_s=$BUILT_S
look_at_the_time() {
    left_s=$((until - $(date +%s)))
    ((left_s >= need_s)) || left_out "it takes some $((need_s / 60)) minutes, and $((left_s / 60)) are left"
}
look_at_the_time

scripts/apt-install.sh qemu-system-x86 qemu-utils || left_out "QEMU cannot be installed"
look_at_the_time # again: a limit of no seconds would be none

mkdir -p .cache
if [[ ! -f .cache/vm/disk.img.made ]] && (($(df --output=avail .cache | tail -n 1) < SPACE_KIB)); then
    left_out "it takes $((SPACE_KIB >> 20)) GiB of disk"
fi

status=0
timeout --kill-after=30 "$left_s" "${VENV:-.venv}/bin/python" hw-tests/vm/run.py --times 1 --cuts 1 --no-cma || status=$?
case $status in
    0) ;;
    3) left_out "the machine cannot be made here (see above)" ;;
    124) left_out "it was not done in time" ;;
    *)
        (($(date +%s) < until)) || left_out "it was not done in time" # killed, for it did not end when told to
        exit 1
        ;;
esac
