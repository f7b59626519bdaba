#!/usr/bin/env bash
# Build the machine's disk once: Debian 13, its kernel and systemd, libcamera, picamera2 from PyPI, the kernel modules of
# this folder. Kept in .cache/vm; made anew when something it is made of changes. Root (or sudo); about six minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[[ $(id -u) -eq 0 ]] || exec sudo MIRROR="${MIRROR:-http://deb.debian.org/debian}" "$0" "$@"

here=hw-tests/vm
cache=$PWD/.cache/vm
root=$cache/root
image=$cache/disk.img
python=.venv/bin/python
picamera2=0.3.38

say() { printf '%s\n' "vm: $*"; }
fail() {
    printf '%s\n' "vm: error: $1" >&2
    exit 1
}
list() { grep -v '^#' "$1"; }

mkdir -p "$cache"
mapfile -t tests < <(list scripts/trixie-packages.txt)
mapfile -t more < <(list $here/packages.txt)
scripts/debian-root.sh "$PWD/.cache/trixie" "${tests[@]}"
BASE=$PWD/.cache/trixie scripts/debian-root.sh "$root" "${more[@]}"

made_of=$(cat "$root.made" $here/build.sh $here/*.c $here/pykms.py $here/*.rules $here/*.service | sha256sum)
if [[ -f $image && -f $image.made && $(<"$image.made") == "$made_of" ]]; then
    exit 0
fi
rm -f "$image.made"
log=$cache/build.log
: >"$log"

# --- picamera2: fetched by the host's pip (its proxy, its certificates), installed in the tree ------------------------
say "picamera2 $picamera2 from PyPI"
wheels=$cache/wheels
mkdir -p "$wheels"
fetch() { "$python" -m pip download --quiet --disable-pip-version-check --no-deps -d "$wheels" "$@" >>"$log" 2>&1; }
if ! fetch --only-binary=:all: --python-version 3.13 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
    --platform any "picamera2==$picamera2" simplejpeg videodev2 openexr || ! fetch --no-binary=pidng pidng; then
    tail -n 10 "$log" >&2
    fail "pip could not fetch picamera2 and what it needs (make setup first; is there a network?)"
fi
rm -rf "$root/opt/wheels"
cp -r "$wheels" "$root/opt/wheels"
# --no-deps and no index: numpy and av stay Debian's.
chroot "$root" /bin/sh -c 'PATH=/usr/bin:/usr/sbin:/bin python3 -m pip install --break-system-packages --root-user-action=ignore \
    --no-index --no-deps --no-build-isolation --upgrade /opt/wheels/*' >>"$log" 2>&1 ||
    { tail -n 15 "$log" >&2 && fail "picamera2 could not be installed; all that was said: $log"; }
install -m 644 $here/pykms.py "$root/usr/local/lib/python3.13/dist-packages/pykms.py"

# --- kernel modules ---------------------------------------------------------------------------------------------------
say "kernel modules"
install -D -m 644 -t "$root/opt/modules" $here/vh264.c $here/vpisp.c $here/vusbfw.c
# shellcheck disable=SC2016  # the inner shell expands it
chroot "$root" env -i PATH=/usr/bin:/usr/sbin:/bin LANG=C.UTF-8 /bin/bash -euc '
    kernel=$(ls /lib/modules)
    cd /opt/modules
    # The framework of memory-to-memory devices: no driver of this architecture selects it, so Debian does not build it.
    tar -xf /usr/src/linux-source-6.12.tar.xz --strip-components=4 linux-source-6.12/drivers/media/v4l2-core/v4l2-mem2mem.c
    echo "obj-m += v4l2-mem2mem.o vh264.o vpisp.o vusbfw.o" >Makefile
    make -s -C "/lib/modules/$kernel/build" M=/opt/modules modules
    strip -g ./*.ko
    install -D -m 644 -t "/lib/modules/$kernel/updates" ./*.ko
    depmod "$kernel"
' >>"$log" 2>&1 || { tail -n 15 "$log" >&2 && fail "the kernel modules could not be built; all that was said: $log"; }

# --- settings ---------------------------------------------------------------------------------------------------------
install -m 644 $here/99-msrecd-vm.rules "$root/etc/udev/rules.d/"
install -m 644 $here/hw-tests.service "$root/etc/systemd/system/"
mkdir -p "$root/mnt/host" "$root/etc/systemd/system/graphical.target.wants" "$root/var/lib/msrecd"
ln -sf ../hw-tests.service "$root/etc/systemd/system/graphical.target.wants/hw-tests.service"
ln -sf /lib/systemd/system/graphical.target "$root/etc/systemd/system/default.target"
# The recordings lie on a disk of their own, which outlives the emulator.
echo '/dev/vdb /var/lib/msrecd ext4 defaults,nofail,x-systemd.device-timeout=20s 0 2' >"$root/etc/fstab"
echo msrecd-vm >"$root/etc/hostname"
echo 6d737265636476006d73726563647600 >"$root/etc/machine-id" # the same machine at every boot
printf '127.0.0.1 localhost msrecd-vm\n' >"$root/etc/hosts"
for unit in man-db.timer apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
    e2scrub_reap.service getty@tty1.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# --- the disk ---------------------------------------------------------------------------------------------------------
say "the disk"
cp "$(readlink -f "$root/vmlinuz")" "$cache/vmlinuz"
cp "$(readlink -f "$root/initrd.img")" "$cache/initrd.img"
rm -f "$image" "$image.new"
rm -rf "$root/srv/msrecd" "$root/opt/wheels"
truncate -s 6G "$image.new"
mkfs.ext4 -q -F -L msrecd-vm -d "$root" "$image.new" >>"$log" 2>&1 || fail "mkfs.ext4 failed; see $log"
mv "$image.new" "$image"
printf '%s\n' "$made_of" >"$image.made"
say "made $image ($(du -h "$image" | cut -f1))"
