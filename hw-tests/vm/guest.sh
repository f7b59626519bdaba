#!/usr/bin/env bash
# In the machine, as root: install msrecd, bring up the hardware, run the tests that SHARE/settings names.
# All that is worth keeping goes to /mnt/host. Started by hw-tests.service.
#
# With PREPARE in the settings it stops half-way, for the host to save the machine's state. A machine that goes on from
# there gets its disks, and runs this script again.
host=/mnt/host
results=$host/results
mkdir -p $results
exec >"$results/guest.txt" 2>&1
set -ux
# shellcheck source=/dev/null
. $host/settings # PYTEST_ARGS=(...)

install_all() {
    dpkg -i $host/msrecd.deb && cp $host/msrecd.deb /srv/
    cp -r $host/msrecd/. -t /srv/ # without msrecd: the package is under test
    bash /srv/hw-tests/vm/hardware.sh start
    udevadm settle
    for _ in $(seq 50); do # the camera's driver is loaded by udev
        [[ -e /dev/media0 && -e /dev/video0 ]] && break
        sleep 0.2
    done
}

if [[ -n ${PREPARE:-} ]]; then
    install_all
    udevadm settle
    sync
    touch $results/prepared /run/prepared
    # Without a file of the host's open: as long as its folder is mounted nothing can be saved.
    exec bash -c '
        exec >/dev/null 2>&1
        cd /
        until umount /mnt/host; do sleep 0.2; done
        until [[ -b /dev/vdb ]]; do sleep 0.1; done # saved, and going on
        until mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 host /mnt/host; do sleep 0.2; done
        exec bash /mnt/host/guest.sh
    '
fi
if [[ -e /run/prepared ]]; then # what a boot would have done
    date -s "@$HOST_TIME"
    # Of the host's time: what the kernel calls random has been saved, too.
    md5sum <<<"$HOST_TIME" | sed -E 's/(.{8})(.{4})(.{4})(.{4})(.{12}).*/\1-\2-\3-\4-\5/' >/run/boot_id
    mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
    mkdir -p /run/systemd/system/msrecd.service.d # it has a /proc of its own
    printf '[Service]\nBindReadOnlyPaths=/run/boot_id:/proc/sys/kernel/random/boot_id\n' \
        >/run/systemd/system/msrecd.service.d/boot-id.conf
    systemctl daemon-reload
    cp -r $host/msrecd/. -t /srv/
    cmp -s $host/msrecd.deb /srv/msrecd.deb || { dpkg -i $host/msrecd.deb && cp $host/msrecd.deb /srv/; }
fi
(exec journalctl -f -b -n all -o short-precise >"$results/journal.txt") &
# After a power cut, on a slow host: its device may come later than systemd waits for it.
mountpoint -q /var/lib/msrecd || { fsck -p /dev/vdb; mount /dev/vdb /var/lib/msrecd; } || exit 1
# Nobody tells this machine the time, but its clock is the host's: let the daemon trust it.
mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized
[[ -e /run/prepared ]] || install_all
if [[ -e /dev/vdc ]]; then # a card as it comes from the shop: no owners, no journal; nobody repairs it after a cut
    mkdir -p /media/card /etc/systemd/system/msrecd.service.d
    mount -t vfat -o uid=msrecd,gid=msrecd,umask=027 /dev/vdc /media/card || exit 1
    printf '[Service]\nReadWritePaths=/media/card\n' >/etc/systemd/system/msrecd.service.d/card.conf
    systemctl daemon-reload
fi
cd /srv || exit
env PYTHONDONTWRITEBYTECODE=1 timeout "$GUEST_TIMEOUT" python3 -m pytest -p no:cacheprovider "${PYTEST_ARGS[@]}" \
    >"$results/pytest.txt" 2>&1
echo $? >"$results/exit"
systemctl stop msrecd
journalctl -b -k -o cat --no-pager | grep -E "EXT4-fs (error|warning)|BUG:|Oops|Call Trace" >"$results/kernel-trouble.txt"
sync
