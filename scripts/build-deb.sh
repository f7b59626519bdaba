#!/usr/bin/env bash
# Build the Debian package into dist/. The work is done on a copy, so that the tree stays as it is.
#
# ROOT=FOLDER builds with the tools of another Debian tree (as root; they have to be there already). VERSION=0.0.9 builds
# this same program as another version, OUT=FOLDER puts it elsewhere: both are for tests of upgrades.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=${ROOT:-}
out=${OUT:-dist}
fail() {
    echo "deb: error: $1" >&2
    exit 1
}

if [[ -z $root ]]; then
    scripts/apt-install.sh dpkg-dev debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools fakeroot
fi

work=$(mktemp -d -p "$root/tmp" msrecd-deb.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/msrecd" "$out"
# A file that is in the index and was removed from the tree is not a reason to stop.
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -e $file ]]; then printf '%s\0' "$file"; fi
done | xargs -0 cp --parents -t "$work/msrecd"
if [[ -n ${VERSION:-} ]]; then
    sed -i "1s/([^)]*)/($VERSION)/" "$work/msrecd/debian/changelog"
    sed -i "s/^__version__ = .*/__version__ = \"$VERSION\"/" "$work/msrecd/msrecd/__init__.py"
    sed -i "1s/$/ As of $VERSION./" "$work/msrecd/debian/msrecd.toml" # no two versions ship the same one
fi
# The interpreter and tools of the system, not those of a virtual environment or a version manager. -d: nothing is
# compiled, so build-essential, which every build is taken to need, is not asked for.
build=(env -u VIRTUAL_ENV LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c "cd '${work#"$root"}/msrecd' && exec dpkg-buildpackage -d -us -uc -b")
[[ -z $root ]] || build=(chroot "$root" "${build[@]}")
if ! "${build[@]}" >"$work/log" 2>&1; then
    tail -n 30 "$work/log" >&2
    fail "dpkg-buildpackage failed; its last lines stand above"
fi
rm -f "$out"/msrecd_*.deb # an older one beside it would be taken for this one
cp "$work"/msrecd_*.deb "$out"/
echo "deb: $(ls "$out"/msrecd_*.deb)"
