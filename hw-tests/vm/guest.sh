#!/usr/bin/env bash
# In the machine, as root: install msrecd, bring up the hardware, run the tests that SHARE/settings names.
# All that is worth keeping goes to /mnt/host. Started by hw-tests.service.
host=/mnt/host
results=$host/results
mkdir -p $results
exec >"$results/guest.txt" 2>&1
set -ux
# shellcheck source=/dev/null
. $host/settings # PYTEST_ARGS=(...)

(exec journalctl -f -b -n all -o short-precise >"$results/journal.txt") &
# After a power cut, on a slow host: its device may come later than systemd waits for it.
mountpoint -q /var/lib/msrecd || { fsck -p /dev/vdb; mount /dev/vdb /var/lib/msrecd; } || exit 1
# Nobody tells this machine the time, but its clock is the host's: let the daemon trust it.
mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized
dpkg -i $host/msrecd.deb
if [[ -e /dev/vdc ]]; then # a card as it comes from the shop: no owners, no journal; nobody repairs it after a cut
    mkdir -p /media/card /etc/systemd/system/msrecd.service.d
    mount -t vfat -o uid=msrecd,gid=msrecd,umask=027 /dev/vdc /media/card || exit 1
    printf '[Service]\nReadWritePaths=/media/card\n' >/etc/systemd/system/msrecd.service.d/card.conf
    systemctl daemon-reload
fi
bash $host/msrecd/hw-tests/vm/hardware.sh start
udevadm settle
for _ in $(seq 50); do # the camera's driver is loaded by udev
    [[ -e /dev/media0 && -e /dev/video0 ]] && break
    sleep 0.2
done
cp -r $host/msrecd/hw-tests $host/msrecd/tests $host/msrecd/pyproject.toml -t /srv/ # without msrecd: the package is under test
cd /srv || exit
env PYTHONDONTWRITEBYTECODE=1 timeout "$GUEST_TIMEOUT" python3 -m pytest -p no:cacheprovider "${PYTEST_ARGS[@]}" \
    >"$results/pytest.txt" 2>&1
echo $? >"$results/exit"
systemctl stop msrecd
journalctl -b -k -o cat --no-pager | grep -E "EXT4-fs (error|warning)|BUG:|Oops|Call Trace" >"$results/kernel-trouble.txt"
sync
