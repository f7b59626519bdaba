#!/usr/bin/env bash
# Install Debian packages that are not there: apt-install.sh PACKAGE... As root or by sudo; waits for another apt to end, and
# fetches the lists of packages where they are too old. Silent when nothing is missing. Exit status 1: they cannot be installed.
set -euo pipefail

missing=()
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0
sudo=()
[[ $(id -u) -eq 0 ]] || sudo=(sudo)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1; }
printf '%s\n' "apt-get install ${missing[*]}"
if ! apt install --no-install-recommends "${missing[@]}" && ! { apt update && apt install --no-install-recommends "${missing[@]}"; }; then
    tail -n 5 "$log" >&2
    printf '%s\n' "error: could not install ${missing[*]}" >&2
    exit 1
fi
