#!/usr/bin/env bash
# Boot the machine and wait until it switches itself off: boot.sh SHARE DATA-DISK [CARD]
#
# STATE=make boots it without disks, from .cache/vm/prepared.qcow2, for machine.py to save its state there; STATE=use goes
# on from that state. MONITOR is then the socket of the emulator's monitor, over which machine.py plugs the disks in.
# SHARE is the folder that the machine sees as /mnt/host; it runs SHARE/guest.sh. What it writes to its own disk is
# forgotten; DATA-DISK (ext4, made if it is missing) is its /var/lib/msrecd and stays. CARD (FAT32) is /media/card.
# The emulator's process id is in SHARE/qemu.pid: to kill it is to cut the power. TIMEOUT=seconds ends it.
# VM_ACCEL=kvm or tcg; default: kvm where it works. "boot.sh accel" tells which one it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=$PWD/.cache/vm

# /dev/kvm may be there and of no use (in a virtual machine): believe it when a kernel has spoken.
works() {
    [[ -w /dev/kvm ]] || return 1
    local said
    said=$(timeout 20 qemu-system-x86_64 "${kvm[@]}" -m 256 -display none -serial stdio -monitor none -nic none -no-reboot \
        -kernel "$cache/vmlinuz" -append "console=ttyS0 panic=-1 root=/dev/none" </dev/null 2>/dev/null || true)
    [[ $said == *"Linux version"* ]]
}
kvm=(-accel kvm -cpu "host,-arch-capabilities" -smp 2)
# One processor: with several, QEMU 7.2 lets a kernel that patches its own code fall over its int3 now and then.
# The model "max" is slower. The clocks count instructions, one a nanosecond: in its own time the machine is as fast on a
# busy host as on a quiet one, so that its tests judge the program. It only takes longer.
tcg=(-accel "tcg,thread=single" -cpu qemu64 -smp 1 -icount "shift=0,sleep=on" -rtc clock=vm)
case ${VM_ACCEL:-$(cat "$cache/accel" 2>/dev/null || true)} in
kvm) accel=("${kvm[@]}") ;;
tcg) accel=("${tcg[@]}") ;;
*) if works; then
    accel=("${kvm[@]}")
    echo kvm >"$cache/accel"
else
    accel=("${tcg[@]}")
    echo tcg >"$cache/accel"
fi ;;
esac
if [[ $1 == accel ]]; then
    echo "${accel[1]%%,*}"
    exit
fi
share=$1
data=${2:-}
card=${3:-}
if [[ -n $data && ! -e $data ]]; then
    truncate -s 1G "$data"
    mkfs.ext4 -q -F -L msrecd-data "$data"
fi
if [[ -n $card && ! -e $card ]]; then
    truncate -s 1G "$card"
    mkfs.vfat -F 32 -n MSRECD "$card" >/dev/null
fi

disks=()
if [[ -n ${STATE:-} ]]; then
    disks+=(-drive "file=$cache/prepared.qcow2,format=qcow2,if=virtio" -qmp "unix:$MONITOR,server=on,wait=off")
    if [[ $STATE == use ]]; then disks+=(-loadvm prepared); fi
else
    disks+=(-drive "file=$cache/disk.img,format=raw,if=virtio,snapshot=on")
    for disk in "$data" "$card"; do
        if [[ -n $disk ]]; then disks+=(-drive "file=$disk,format=raw,if=virtio,cache=writeback"); fi
    done
fi

exec nice -n 5 timeout --foreground "${TIMEOUT:-1200}" qemu-system-x86_64 "${accel[@]}" -m 1536 -pidfile "$share/qemu.pid" \
    -display none -serial "file:$share/console.txt" -monitor none -no-reboot -nic none \
    -kernel "$cache/vmlinuz" -initrd "$cache/initrd.img" \
    -append "root=/dev/vda rw console=ttyS0 quiet mitigations=off panic=-1" "${disks[@]}" \
    -virtfs "local,path=$share,mount_tag=host,security_model=none" </dev/null
