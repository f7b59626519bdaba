#!/usr/bin/env bash
# Run the tests on Debian 13 with its own packages only: Python 3.13, and no wheel from PyPI.
# What Debian ships is what the .deb runs with. Arguments go to pytest.
#
# The tree is kept in .cache/trixie (600 MB); the checkout is copied into it, so that it stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ $(id -u) -eq 0 ]] || exec sudo MIRROR="${MIRROR:-http://deb.debian.org/debian}" "$0" "$@"

root=$PWD/.cache/trixie
mapfile -t packages < <(grep -v "^#" scripts/trixie-packages.txt)
scripts/debian-root.sh "$root" "${packages[@]}"

copy=$root/srv/msrecd
rm -rf "$copy"
mkdir -p "$copy"
# A file that is in the index and was removed from the tree is not a reason to stop.
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -e $file ]]; then printf '%s\0' "$file"; fi
done | xargs -0 cp --parents -t "$copy"

# A system that was booted once has one; some defaults are made of it.
[[ -s $root/etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"

# Own mounts and processes: whatever a test leaves behind goes with them.
status=0
# shellcheck disable=SC2016  # the inner shell expands them
unshare --mount --pid --fork --kill-child /bin/bash -euc '
    root=$1
    shift
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    # Not a tmpfs: some tests want a folder of the root file system, to put another one on top of it.
    rm -rf "$root"/tmp/pytest-of-*
    mkdir -p "$root/run/lock"
    exec chroot "$root" env -i HOME=/root LANG=C.UTF-8 PYTHONPATH=/srv/msrecd PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin \
        /bin/sh -c "cd /srv/msrecd && exec python3 -X dev -m pytest -p no:cacheprovider \"\$@\"" pytest "$@"
' trixie "$root" "$@" || status=$?
exit "$status"
