#!/usr/bin/env bash
# Build the Debian package into dist/. The work is done on a copy, so that the tree stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=()
for package in dpkg-dev debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools fakeroot; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
    sudo=()
    [[ $(id -u) -eq 0 ]] || sudo=(sudo)
    echo "deb: installing what the build needs: ${missing[*]}"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null || {
        echo "deb: error: could not install ${missing[*]}; try: apt-get update" >&2
        exit 1
    }
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/msrecd" dist 2>/dev/null || true
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$work/msrecd"
# The interpreter and tools of the system, not those of a virtual environment or a version manager.
if ! (cd "$work/msrecd" && env -u VIRTUAL_ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage -us -uc -b) >"$work/log" 2>&1; then
    tail -n 30 "$work/log" >&2
    echo "deb: error: dpkg-buildpackage failed; its last lines stand above" >&2
    exit 1
fi
cp "$work"/msrecd_*.deb dist/
echo "deb: $(ls dist/msrecd_*.deb)"
