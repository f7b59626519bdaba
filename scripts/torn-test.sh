#!/usr/bin/env bash
# Power cuts with torn writes on ext4 and FAT32, and the other tests that want a kernel with vfat: in a virtual machine
# with Debian's kernel whose root is this machine's, read-only. Needs root and,
# the first time, a Debian mirror. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin"

fail() {
    printf 'torn-test: error: %s\n' "$1" >&2
    exit 2
}
[[ $(id -u) -eq 0 ]] || fail "it reads all of the root file system: run it as root"
scripts/apt-install.sh qemu-system-x86 busybox-static cpio dmsetup e2fsprogs dosfstools

cache=.cache/torn
mkdir -p "$cache"
if ! compgen -G "$cache/kernel/boot/vmlinuz-*" >/dev/null; then
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
    [[ -n $package ]] || fail "apt knows no linux-image-amd64"
    (cd "$cache" && apt-get download -q "$package" && dpkg -x "$package"_*.deb kernel && rm -f "$package"_*.deb)
fi
kernel=$(compgen -G "$cache/kernel/boot/vmlinuz-*" | head -n 1)
version=${kernel##*/vmlinuz-}

initrd=$cache/initrd
rm -rf "$initrd"
mkdir -p "$initrd"/{bin,host,proc,sys,dev,lib/modules}
cp "$(command -v busybox)" "$initrd/bin/busybox"
modules=$(find "$PWD/$cache/kernel" -type d -path "*lib/modules/$version" | head -n 1)
(
    cd "${modules%/*}"
    find "$version" -type f \( -path '*/drivers/virtio/*' -o -path '*/drivers/block/*' -o -path '*/drivers/md/*' \
        -o -path '*/drivers/dax/*' -o -path '*/fs/9p/*' -o -path '*/fs/netfs/*' -o -path '*/fs/fscache/*' \
        -o -path '*/net/9p/*' -o -path '*/fs/fat/*' -o -path '*/fs/nls/*' -o -path '*/fs/ext4/*' -o -path '*/fs/jbd2/*' \
        -o -path '*/fs/mbcache*' -o -path '*/kernel/lib/*' -o -path '*/kernel/crypto/*' \
        -o -path '*/arch/x86/crypto/crc*' \) -print0
) | (cd "${modules%/*}" && cpio --quiet -0pdm "$OLDPWD/$initrd/lib/modules")
busybox depmod -b "$initrd" "$version"
cat >"$initrd/init" <<'EOF'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in virtio_pci 9pnet_virtio 9p loop ext4 vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 crc32c_generic \
    crc32c_intel dm_mod dm_log_writes; do
    modprobe "$module" 2>/dev/null # some are built in
done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /host || poweroff -f
for folder in proc sys dev; do mount --bind "/$folder" "/host/$folder"; done
mkdir -p /dev/shm /dev/mapper
for folder in tmp run var/tmp dev/shm; do mount -t tmpfs -o size=90% tmpfs "/host/$folder"; done
chroot /host /usr/bin/env -i HOME=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 TMPDIR=/tmp \
    sh -c "$(sed -n 's/.*torn\.command="\([^"]*\)".*/\1/p' /proc/cmdline | tr '~' ' ')" </dev/null
echo "torn-test: exit $?"
poweroff -f
EOF
chmod 755 "$initrd/init"
(cd "$initrd" && find . | cpio --quiet -o -H newc | gzip -1) >"$cache/initrd.img"

# /dev/kvm may be there and of no use (in a virtual machine): believe it when a kernel has spoken.
machine=(-accel kvm -cpu host -smp 2)
said=
if [[ -w /dev/kvm ]]; then
    said=$(timeout 10 qemu-system-x86_64 "${machine[@]}" -m 256 -nodefaults -display none -serial stdio -no-reboot \
        -kernel "$kernel" -append "console=ttyS0 panic=-1 root=/dev/none" </dev/null 2>/dev/null || true)
fi
if [[ $said != *"Linux version"* ]]; then # numpy wants more than the oldest processor; "max" is slower
    machine=(-accel "tcg,thread=single" -cpu "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt" -smp 1)
fi
variables="MSRECD_CUTS=${MSRECD_CUTS:-200}"
[[ -n ${MSRECD_FAULTS:-} ]] && variables="$variables MSRECD_FAULTS=1"
tests=${*:-tests/storage/test_torn_writes.py}
command="cd $PWD && $variables .venv/bin/python -m pytest -q -s -p no:cacheprovider -p no:hypothesispytest $tests"
[[ $PWD$tests != *[\"~]* ]] || fail "no quotes and tildes, please"
log=$cache/log
rm -f "$log"
qemu-system-x86_64 "${machine[@]}" -m 2048 -nodefaults -no-reboot -display none -serial stdio \
    -kernel "$kernel" -initrd "$cache/initrd.img" \
    -append "console=ttyS0 quiet panic=-1 torn.command=\"${command// /\~}\"" \
    -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=host,mount_tag=host | stdbuf -o0 tr -d '\r' | tee "$log"
status=$(sed -n 's/^torn-test: exit //p' "$log" | tail -n 1)
exit "${status:-1}"
