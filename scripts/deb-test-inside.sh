#!/usr/bin/env bash
# What scripts/deb-test.sh does inside of the Debian tree.
set -euo pipefail

fail() {
    printf 'deb-test: error: %s\n' "$1" >&2
    exit 1
}
apt_get() {
    # Everything it depends on is there, so nothing is fetched. To a question nobody answers: none may be asked.
    apt-get -y -q --no-install-recommends "$@" </dev/null >/tmp/apt.log 2>&1 ||
        { tail -n 20 /tmp/apt.log >&2 && fail "apt-get $*"; }
}
files() {
    # What a package manager and an interpreter keep for themselves does not count.
    find / -xdev \( -path /srv -o -path /tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt \
        -o -path /var/lib/systemd -o -name __pycache__ -o -path /root \) -prune -o -print | LC_ALL=C sort
}
record() {
    # As the unit runs it, without systemd, until a chunk is finished.
    timeout -s TERM -k 60 8 runuser -u msrecd -- msrecd run >/tmp/run.log 2>&1 || true
    [[ $(find /var/lib/msrecd/recordings -name '*.mp4' | wc -l) -ge $1 ]] || { cat /tmp/run.log >&2 && fail "no recording"; }
}

files >/tmp/before
apt_get install /srv/deb/old.deb
getent passwd msrecd >/dev/null || fail "no user"
systemd-tmpfiles --create /usr/lib/tmpfiles.d/msrecd.conf
[[ $(stat -c '%U %a' /var/lib/msrecd/recordings) == "msrecd 750" ]] || fail "the recordings' folder: $(stat -c '%U %a' /var/lib/msrecd/recordings)"
[[ $(stat -c '%U:%G %a' /etc/msrecd/msrecd.toml) == "root:msrecd 640" ]] || fail "the configuration may be read by all"
[[ ! -e /etc/systemd/system/multi-user.target.wants/msrecd.service ]] || fail "enabled unasked"
for page in 1/msrecd.1 5/msrecd.toml.5; do [[ -s /usr/share/man/man$page.gz ]] || fail "no man page $page"; done
msrecd check-config >/dev/null || fail "the configuration that is installed is not valid"
echo "deb-test: installed $(msrecd --version)"

# One line is edited: devices without hardware.
sed -i 's/^virtual = false/virtual = true/' /etc/msrecd/msrecd.toml
printf '[[recorder]]\nname = "deb"\nvideo = { width = 320, height = 240 }\nchunk_duration = "2s"\nautostart = true\n' >/etc/msrecd/conf.d/deb.toml
record 1
cp -a /var/lib/msrecd/recordings /tmp/recordings
sha256sum /etc/msrecd/msrecd.toml >/tmp/edited
echo "deb-test: recorded $(find /var/lib/msrecd/recordings -name '*.mp4' | wc -l) chunks"

apt_get install /srv/deb/new.deb
[[ $(dpkg-query -W -f '${Version}' msrecd) == *+newer ]] || fail "not upgraded"
sha256sum --status -c /tmp/edited || fail "the upgrade changed the configuration"
diff -r /tmp/recordings /var/lib/msrecd/recordings >/dev/null || fail "the upgrade changed recordings"
record "$(($(find /tmp/recordings -name '*.mp4' | wc -l) + 1))"
msrecd recordings verify >/dev/null || fail "the recordings do not verify"
rm -rf /tmp/recordings && cp -a /var/lib/msrecd/recordings /tmp/recordings
echo "deb-test: upgraded to $(dpkg-query -W -f '${Version}' msrecd); configuration and recordings are the same, it records"

apt_get remove msrecd
[[ ! -e /usr/bin/msrecd ]] || fail "still there after removal"
sha256sum --status -c /tmp/edited || fail "the removal changed the configuration"
diff -r /tmp/recordings /var/lib/msrecd/recordings >/dev/null || fail "the removal changed recordings"
apt_get install /srv/deb/new.deb
sha256sum --status -c /tmp/edited || fail "installing again changed the configuration"
rm /etc/msrecd/conf.d/deb.toml # the administrator's own file, no package's
apt_get purge msrecd
diff -r -x '.msrecd*' /tmp/recordings /var/lib/msrecd/recordings >/dev/null || fail "the purge changed recordings"
files >/tmp/after
left=$(LC_ALL=C comm -13 /tmp/before /tmp/after | grep -v '^/var/lib/msrecd\(/recordings\(/deb\(/.*\)\?\)\?\)\?$' || true)
# Accounts stay, as the policy of Debian has it: files that remain are theirs. Their files are rewritten, with copies.
left=$(grep -v '^/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$\|^/etc/\.pwd\.lock$' <<<"$left" || true)
[[ -z $left ]] || fail "left behind by the purge: $left"
gone=$(LC_ALL=C comm -23 /tmp/before /tmp/after)
[[ -z $gone ]] || fail "taken along by the purge: $gone"
echo "deb-test: purged; $(find /var/lib/msrecd/recordings -name '*.mp4' | wc -l) chunks stay, and nothing else"
