#!/usr/bin/env bash
# The life of the Debian package on a fresh Debian 13 that really runs, systemd as process 1: built and judged by lintian,
# installed by apt with what it depends on, one line edited, started, recording, reloaded, killed, upgraded while it
# records, off-loading by rclone in its unit, removed, purged. Root; Debian's archive; some six minutes, five more the first
# time.
#
# Nothing of it stays: what the machine writes goes to memory, its network is its own, its processes end with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ $(id -u) -eq 0 ]] || exec sudo MIRROR="${MIRROR:-http://deb.debian.org/debian}" "$0" "$@"

say() { printf '%s\n' "deb-test: $*"; }
fail() {
    say "error: $1" >&2
    exit 1
}

scripts/apt-install.sh systemd-container

cache=$PWD/.cache
scripts/debian-root.sh "$cache/trixie-fresh" dbus systemd-sysv
BASE=$cache/trixie-fresh scripts/debian-root.sh "$cache/trixie-build" \
    debhelper dh-python dpkg-dev fakeroot lintian pybuild-plugin-pyproject python3-all python3-setuptools
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/deb" "$cache/deb-archives/partial"
# What it is on Debian 13; and an older one, which is the same program, for the upgrade.
ROOT=$cache/trixie-build OUT=$work/new scripts/build-deb.sh
ROOT=$cache/trixie-build OUT=$work/old VERSION=0.0.9 scripts/build-deb.sh
cp "$work/new"/msrecd_*.deb "$work/deb/new.deb"
cp "$work/old"/msrecd_*.deb "$work/deb/old.deb"
cp scripts/deb-test-inside.sh tests/support/dbusservice.py "$work/deb/"
rm -rf "$cache/trixie-build/srv/deb"
cp -r "$work/deb" "$cache/trixie-build/srv/deb"
said=$(chroot "$cache/trixie-build" env -i PATH=/usr/bin:/usr/sbin:/bin LC_ALL=C.UTF-8 \
    lintian --allow-root --display-info --pedantic /srv/deb/new.deb) || said+=$'\nand failed'
[[ -z $said ]] || fail "lintian: $said"
say "lintian: clean, with hints and pedantry"

# Own mounts; the machine of systemd-nspawn adds own processes, network, names and control groups.
status=0
: >"$work/out"
tail -n +1 -f --pid=$$ "$work/out" & # what the machine says, while it says it
# shellcheck disable=SC2016  # the inner shell expands them
unshare --mount --pid --fork --kill-child --mount-proc /bin/bash -euc '
    fresh=$1 archives=$2 work=$3
    mount --make-rprivate /
    mkdir -p /run/systemd "$work/memory"
    mount -t tmpfs tmpfs /run/systemd # where it leaves things behind
    mount -t tmpfs tmpfs "$work/memory"
    mkdir "$work/memory/upper" "$work/memory/work" "$work/memory/root"
    mount -t overlay overlay -o "lowerdir=$fresh,upperdir=$work/memory/upper,workdir=$work/memory/work" "$work/memory/root"
    root=$work/memory/root
    cp -r "$work/deb" "$root/srv/deb"
    touch "$root/srv/out"
    mount --bind "$archives" "$root/var/cache/apt/archives"
    # Fetched from here: the machine has no network, as boxes on masts have none.
    in_root() { chroot "$root" env -i PATH=/usr/bin:/usr/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
    quietly() { "$@" >"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log" >&2 && exit 1; }; }
    rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" # recommended packages come along, as everywhere
    quietly in_root apt-get update -q
    quietly in_root apt-get install -y -q --download-only /srv/deb/new.deb rclone
    rm -f "$root/etc/machine-id"
    cat >"$root/etc/systemd/system/deb-test.service" <<UNIT
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
ExecStart=/bin/sh -c "/bin/bash /srv/deb/deb-test-inside.sh >>/srv/out 2>&1; systemctl exit \$\$?"
UNIT
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -s ../deb-test.service "$root/etc/systemd/system/multi-user.target.wants/"
    # There is no network to wait for, and what comes after it (the broker) would wait two minutes.
    ln -s /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service"
    # Where the control groups are not the machine'"'"'s own kind, it is told to take the unified ones. 133: it reboots.
    status=133
    while [[ $status -eq 133 ]]; do
        status=0
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout --foreground -k 20 2400 systemd-nspawn --quiet --boot --directory="$root" \
            --machine=deb-test --register=no --keep-unit --private-network --resolv-conf=off --timezone=off --link-journal=no \
            --console=pipe --bind="$archives:/var/cache/apt/archives" --bind="$work/out:/srv/out" \
            systemd.log_level=warning systemd.show_status=no </dev/null || status=$?
    done
    exit $status
' deb-test "$cache/trixie-fresh" "$cache/deb-archives" "$work" || status=$?
sleep 1.5 # tail looks once a second
[[ $status -eq 0 ]] || fail "the machine ended with status $status"
