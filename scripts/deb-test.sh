#!/usr/bin/env bash
# The life of the Debian package on Debian 13: install, edit one line, record, upgrade, remove, purge.
# Runs in the tree of `make trixie-test`, whose files stay as they are: what is written goes to memory. Needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ $(id -u) -eq 0 ]] || exec sudo MIRROR="${MIRROR:-http://deb.debian.org/debian}" "$0" "$@"

root=$PWD/.cache/trixie
mapfile -t packages < <(grep -v "^#" scripts/trixie-packages.txt)
scripts/debian-root.sh "$root" "${packages[@]}"
rm -f dist/msrecd_*.deb
scripts/build-deb.sh

# Own mounts and processes: nothing is left behind.
# shellcheck disable=SC2016  # the inner shell expands them
unshare --mount --pid --fork --kill-child /bin/bash -euc '
    root=$1
    mount --make-rprivate /
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
    mkdir -p /mnt/root/srv/deb
    cp dist/msrecd_*.deb /mnt/root/srv/deb/old.deb
    cp scripts/deb-test-inside.sh /mnt/root/srv/deb/
    dpkg-deb -R dist/msrecd_*.deb /mnt/new
    sed -i "s/^Version: .*/&+newer/" /mnt/new/DEBIAN/control
    dpkg-deb --root-owner-group -b /mnt/new /mnt/root/srv/deb/new.deb >/dev/null
    mount -t proc proc /mnt/root/proc
    mount --rbind /dev /mnt/root/dev
    mount -t tmpfs tmpfs /mnt/root/run
    mount -t tmpfs tmpfs /mnt/root/tmp
    # No service may start in a tree that is no running system.
    printf "#!/bin/sh\nexit 101\n" >/mnt/root/usr/sbin/policy-rc.d
    chmod 755 /mnt/root/usr/sbin/policy-rc.d
    [[ -s /mnt/root/etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >/mnt/root/etc/machine-id
    exec chroot /mnt/root env -i HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin /bin/bash /srv/deb/deb-test-inside.sh
' deb-test "$root"
