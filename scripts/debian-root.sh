#!/usr/bin/env bash
# Make a Debian 13 (trixie) tree with Debian's own packages only: debian-root.sh FOLDER PACKAGE...
# Kept for the next run; made anew when the list of packages changes. Needs root (or sudo) and a Debian mirror.
#
# MIRROR=http://... chooses the mirror. BASE=FOLDER starts from a copy of a tree made before.
set -euo pipefail

root=${1:?"usage: debian-root.sh FOLDER PACKAGE..."}
shift
mirror=${MIRROR:-http://deb.debian.org/debian}
suite=trixie

say() { printf '%s\n' "debian-root: $*"; }
fail() {
    printf '%s\n' "debian-root: error: $1" >&2
    exit 1
}
[[ $(id -u) -eq 0 ]] || exec sudo MIRROR="$mirror" BASE="${BASE:-}" "$0" "$root" "$@"

stamp=$root.made
wanted=$(printf '%s\n' "$suite" "$mirror" "${BASE:-}" && printf '%s\n' "$@" | LC_ALL=C sort)
if [[ -n ${BASE:-} ]]; then wanted+=$'\n'$(sha256sum <"$BASE.made"); fi
if [[ -d $root && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    exit 0
fi

mkdir -p "$(dirname "$root")"
log=$root.log
new=$root.new
# A run that was stopped may have left the kernel's file systems mounted below it: never remove through a mount.
while read -r mounted; do umount "$mounted"; done < <(awk -v p="$(realpath -m "$new")/" 'index($2, p) == 1 {print $2}' /proc/mounts | tac)
rm -rf --one-file-system "$new"
if [[ -n ${BASE:-} ]]; then
    say "copying $BASE"
    cp -a "$BASE" "$new"
    # No service may start in a tree that is no running system.
    printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
    chmod 755 "$new/usr/sbin/policy-rc.d"
    mount -t proc proc "$new/proc"
    trap 'umount "$new/proc" 2>/dev/null || true' EXIT
    say "installing $# packages"
    chroot "$new" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1 ||
        { tail -n 15 "$log" >&2 && fail "apt-get failed; all it said: $log"; }
    umount "$new/proc"
    rm -f "$new/usr/sbin/policy-rc.d"
else
    "$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" mmdebstrap
    say "Debian 13 from $mirror, $# packages (two to five minutes, once)"
    nice mmdebstrap --variant=apt --mode=root --aptopt='Apt::Install-Recommends "false"' \
        --include="$(IFS=,; echo "$*")" --skip=cleanup/apt "$suite" "$new" "$mirror" >"$log" 2>&1 ||
        { tail -n 15 "$log" >&2 && fail "mmdebstrap failed; all it said: $log"; }
fi
chroot "$new" apt-get clean
rm -rf --one-file-system "$root"
mv "$new" "$root"
printf '%s\n' "$wanted" >"$stamp"
say "made $root"
