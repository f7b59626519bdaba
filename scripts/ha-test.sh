#!/usr/bin/env bash
# Try msrecd with a real Home Assistant: its core from PyPI, in a Debian 13 tree (Python 3.13), and a broker.
# Needs root (or sudo), a Debian mirror and PyPI; the tree is kept in .cache/trixie-ha (2 GB). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ $(id -u) -eq 0 ]] || exec sudo MIRROR="${MIRROR:-http://deb.debian.org/debian}" "$0" "$@"

release=2026.2.3
base=$PWD/.cache/trixie root=$PWD/.cache/trixie-ha
mapfile -t packages < <(grep -v "^#" scripts/trixie-packages.txt)
scripts/debian-root.sh "$base" "${packages[@]}"
BASE=$base scripts/debian-root.sh "$root" python3-venv python3-dev build-essential libffi-dev

inside() {
    # Own mounts and processes: whatever runs there goes with them. The network stays ours: the broker is on loopback.
    # shellcheck disable=SC2016  # the inner shell expands them
    unshare --mount --pid --fork --kill-child /bin/bash -euc '
        root=$1
        shift
        mount --make-rprivate /
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/tmp"
        exec chroot "$root" env -i HOME=/root LANG=C.UTF-8 PATH=/opt/ha/bin:/usr/bin:/usr/sbin:/bin:/sbin \
            ${PIP_CERT:+PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt} "$@"
    ' ha "$root" "$@"
}

if [[ $(cat "$root/opt/ha/.made" 2>/dev/null) != "$release" ]]; then
    echo "ha-test: Home Assistant $release from PyPI (some minutes, once)"
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    # Where the network's own authority signs, this machine knows it and the new tree does not.
    if [[ -n ${PIP_CERT:-} ]]; then cat "$PIP_CERT" >"$root/etc/ssl/certs/ca-certificates.crt"; fi
    rm -rf "$root/opt/ha"
    inside python3 -m venv /opt/ha
    # The last two are what its mqtt and image parts would fetch by themselves at their first start.
    inside /opt/ha/bin/pip install -q "homeassistant==$release" "paho-mqtt==2.1.0" "PyTurboJPEG==1.8.0"
    printf '%s' "$release" >"$root/opt/ha/.made"
fi

copy=$root/srv/msrecd
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -e $file ]]; then printf '%s\0' "$file"; fi
done | xargs -0 cp --parents -t "$copy"
[[ -s $root/etc/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"

inside /bin/sh -c 'cd /srv/msrecd && PYTHONPATH=/srv/msrecd exec /usr/bin/python3 -m pytest -p no:cacheprovider -m "" ha-tests "$@"' pytest "$@"
