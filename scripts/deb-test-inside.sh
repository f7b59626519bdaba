#!/usr/bin/env bash
# What scripts/deb-test.sh does inside of the machine: a life of the package in two parts, with a reboot between them.
# It waits for what is to happen, with deadlines; nothing is taken to be so because time has passed.
set -euo pipefail

recordings=/var/lib/msrecd/recordings
config=/etc/msrecd/msrecd.toml
notes=/srv/deb/notes # lives through the reboot
mkdir -p "$notes"

say() { printf 'deb-test: %s\n' "$1"; }
fail() {
    printf 'deb-test: error: %s\n' "$1" >&2
    systemctl --no-pager --full status msrecd >&2 || true
    journalctl --no-pager -u msrecd -u mosquitto -u 'msrecd-rclone*' -n 40 >&2 || true
    exit 1
}
apt_get() {
    # To a question nobody answers: none may be asked.
    apt-get -y -q "$@" </dev/null >/tmp/apt.log 2>&1 || { tail -n 20 /tmp/apt.log >&2 && fail "apt-get $*"; }
}
wait_for() { # wait_for SECONDS WORDS COMMAND...
    local end=$((SECONDS + $1)) words=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "not within the time: $words"
        sleep 0.2
    done
}
of_service() { systemctl show --value --property="$1" msrecd; }
is() { [[ $(of_service "$1") == "$2" ]]; }
chunks() { find "$recordings" -name '*.mp4' | LC_ALL=C sort; }
has_chunks() { (($(chunks | wc -l) >= $1)); }
recording() { # the id of the one that is being written, nothing when there is none
    find "$recordings" -name '*.part' -size +0 -printf '%f\n' | sed 's/-[0-9]*\.mp4\.part$//' | sort -u
}
is_recording() { [[ -n $(recording) ]]; }
records_anew() { [[ -n $(recording) && $(recording) != "$1" ]]; }
journal_has() { journalctl --quiet --sync && journalctl -u msrecd -o cat | grep -qF -- "$1"; }
pictures() { python3 -c 'import av, sys; print(sum(1 for _ in av.open(sys.argv[1]).decode(video=0)))' "$1"; }
memory() { # of the service's processes, in MiB
    for pid in $(pgrep -u msrecd); do cat "/proc/$pid/smaps_rollup" 2>/dev/null; done |
        awk '/^(Rss|Pss):/ {sum[$1] += $2} END {printf "Rss %d MiB, Pss %d MiB", sum["Rss:"] / 1024, sum["Pss:"] / 1024}'
}
files() {
    # What a package manager, an interpreter and a running system keep for themselves does not count.
    find / -xdev \( -path /srv -o -path /tmp -o -path /root -o -path /var/log -o -path /var/tmp -o -path /var/cache -o -path /var/lib/dpkg \
        -o -path /var/lib/apt -o -path /var/lib/systemd -o -path /var/lib/private -o -path /var/lib/mosquitto -o -name __pycache__ \) \
        -prune -o -print | LC_ALL=C sort
}
hardware() {
    # This machine has no camera and no microphone: what stands in for them.
    cat >/etc/msrecd/conf.d/hardware.toml <<'TOML'
[devices]
virtual = [
  { kind = "camera", label = "Virtual Camera", modes = [[640, 360, 15]] },
  { kind = "microphone", label = "Virtual Microphone" },
]
TOML
}
time_is_set() {
    # There is no time server either, and the kernel does not tell a container: what timesyncd would leave.
    mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized
}
edit_one_line() {
    cp "$config" "$notes/installed.toml"
    sed -i 's/^autostart = false/autostart = true/' "$config"
    (($(diff "$notes/installed.toml" "$config" | grep -c '^>') == 1)) || fail "it is not one line that was edited"
    sha256sum "$config" >"$notes/edited"
}
is_unchanged() { sha256sum --status -c "$notes/edited" || fail "$1 changed the configuration"; }
same_recordings() { # what the daemon keeps beside them is not theirs
    diff -r -x '.msrecd*' "$notes/recordings" "$recordings" >&2 || fail "$1 changed recordings"
}
keep_recordings() { rm -rf "$notes/recordings" && cp -a "$recordings" "$notes/recordings"; }
proves() { msrecd recordings verify >/dev/null || fail "the recordings do not verify after $1"; }

# --- off-load by rclone, in its unit -----------------------------------------------------------------------------------

nas=/srv/nas/pi
stored() { find "$nas" -name '*.mp4' 2>/dev/null | LC_ALL=C sort; }
has_stored() { (($(stored | wc -l) >= $1)); }
workers() { systemctl list-units --plain --no-legend 'msrecd-rclone@*.service' | awk '{print $1}'; }
works() { [[ -n $(workers) ]]; }
worker_pid() { systemctl show --value --property=MainPID "$(workers | head -n 1)"; }
all_stored() { # each chunk is in the store, bit by bit, and said to be proven
    local file
    for file in $(chunks); do cmp -s "$file" "$nas/${file#"$recordings"/}" || return 1; done
    (($(find "$recordings" -name '*.jsonl' -exec cat {} + | grep -c '"offloaded"') == $(stored | wc -l)))
}
one_more_chunk() {
    local before
    before=$(chunks | wc -l)
    sleep 2 # something to see
    msrecd ctl cam0 split >/dev/null || fail "no answer to a command"
    wait_for 60 "one more chunk" has_chunks $((before + 1))
}
rclone_part() {
    apt_get install rclone
    install -d -o msrecd -g msrecd -m 755 /srv/nas
    install -d -o msrecd -g msrecd -m 700 /var/lib/msrecd-rclone
    runuser -u msrecd -- rclone config create nas local --config /var/lib/msrecd-rclone/rclone.conf >/dev/null 2>&1 ||
        fail "rclone cannot be configured as docs/recipes.md says"
    cat >/etc/msrecd/conf.d/offload.toml <<'TOML'
[offload]
kind = "rclone"
remote = "nas:/srv/nas"
config_file = "/var/lib/msrecd-rclone/rclone.conf"
prefix = "pi/"
max_rate = "40KiB"
TOML
    msrecd check-config >/dev/null || fail "the off-load's configuration is not valid"
    systemctl start msrecd
    wait_for 60 "a recording" is_recording
    one_more_chunk
    wait_for 60 "what is to be done, in the journal" journal_has "systemctl enable --now msrecd-rclone.socket"
    systemctl enable --quiet --now msrecd-rclone.socket
    systemctl restart msrecd # a store that refuses is tried again after minutes
    wait_for 60 "a recording" is_recording
    wait_for 90 "rclone in its unit" works
    local pid
    pid=$(worker_pid)
    [[ $(stat -c %U "/proc/$pid") == msrecd ]] || fail "rclone's unit runs as $(stat -c %U "/proc/$pid")"
    nsenter --target "$pid" --mount touch /srv/nas/may || fail "the unit may not write where its store is"
    rm /srv/nas/may
    ! nsenter --target "$pid" --mount touch "$recordings/may-not" 2>/dev/null || fail "the unit may write to the recordings"
    ! nsenter --target "$pid" --mount ls /dev/snd 2>/dev/null || fail "the unit sees sound cards"
    wait_for 120 "the chunk in the store" has_stored 1
    wait_for 60 "all chunks in the store" all_stored
    [[ $(stat -c %U "$(stored | head -n 1)") == msrecd ]] || fail "whose is $(stored | head -n 1)"
    say "rclone $(dpkg-query -W -f '${Version}' rclone) in its unit: recordings read-only, no devices; $(stored | wc -l) chunks proven in the store"

    local kills=0
    while ((kills < 3)); do
        one_more_chunk
        wait_for 90 "rclone at work" works
        wait_for 60 "a file on its way" sh -c "find /srv/nas -name '*.part' | grep -q ."
        systemctl kill --signal=KILL "$(workers | head -n 1)" || true
        kills=$((kills + 1))
        wait_for 150 "all chunks in the store after a kill" all_stored
    done
    local failed
    failed=$(systemctl list-units --failed --plain --no-legend 'msrecd-rclone@*') || fail "systemctl does not list failed units"
    [[ -z $failed ]] || fail "failed units are left: $failed"
    [[ -z $(find /srv/nas -name '*.part') ]] || fail "unfinished files are left in the store"
    is_recording || fail "the recording ended with rclone"
    say "rclone killed $kills times in the middle of a file: all $(stored | wc -l) chunks are in the store once, no failed unit is left"

    chmod -R u-w /srv/nas
    one_more_chunk
    wait_for 60 "the refusal in the journal" sh -c "journalctl --quiet --sync; journalctl -u msrecd -o cat | grep -F 'off-load: ' | grep -qi 'permission denied'"
    chmod -R u+w /srv/nas
    systemctl restart msrecd
    wait_for 90 "all chunks in the store that takes them again" all_stored
    say "a store without rights refuses: said in the journal; with them again, all arrives"

    local daemon
    daemon=$(of_service MainPID)
    [[ $(stat -c %U "/proc/$daemon/environ") == root ]] || fail "the daemon's memory is its user's"
    ! runuser -u msrecd -- cat "/proc/$daemon/environ" >/dev/null 2>&1 || fail "another process of its user reads the daemon's memory"
    say "the daemon is not dumpable: other processes of its user cannot read it"

    msrecd recordings verify --store >/dev/null || fail "the store does not prove itself"
    systemctl stop msrecd
    wait_for 30 "the end of rclone's unit with the daemon's" sh -c "! systemctl list-units --plain --no-legend 'msrecd-rclone@*.service' | grep -q ."
    rm /etc/msrecd/conf.d/offload.toml
}
clock_part() {
    # timedated's place on the bus, with an answer of this test's: the unit may not ask the kernel (ProtectClock=).
    rm -rf /run/systemd/timesync /var/lib/msrecd/state # where it says that the clock was right once since the start
    systemctl mask --quiet --now systemd-timedated
    local answer
    for answer in 0 1; do
        python3 - "$answer" <<'PYTHON' &
import signal, sys, types
from pathlib import Path
sys.modules["pytest"] = types.ModuleType("pytest")
sys.path.insert(0, "/srv/deb")
from dbusservice import Service
with Service(Path("/run/dbus/system_bus_socket"), "org.freedesktop.timedate1", "/org/freedesktop/timedate1",
             {"NTPSynchronized": (b"b", int(sys.argv[1]))}):
    signal.sigwait([signal.SIGTERM])
PYTHON
        local service=$!
        wait_for 30 "the answer on the bus" sh -c "busctl get-property org.freedesktop.timedate1 /org/freedesktop/timedate1 org.freedesktop.timedate1 NTPSynchronized | grep -q ."
        systemctl start msrecd
        wait_for 60 "a recording" is_recording
        case $answer-$(recording) in
        0-boot* | 1-20*) ;;
        *) fail "timedated says $answer, and the recording is named $(recording)" ;;
        esac
        systemctl stop msrecd
        kill "$service"
        wait "$service" || true
    done
    systemctl unmask --quiet systemd-timedated
    time_is_set
    say "the clock: what timedated says decides whether recordings are named by the time, though the unit may not ask the kernel"
}

# --- the first part: a fresh system ----------------------------------------------------------------------------------

first_part() {
    # What docs/hardware.md says of a board with little room: asked, not done.
    apt-get install --no-install-recommends --assume-no /srv/deb/new.deb </dev/null >/tmp/lean.log 2>&1 || true
    say "without recommended packages: $(grep -iE 'space needed|disk space' /tmp/lean.log | tail -n 1 | sed 's/^ *//'), $(grep -oE 'Installing: [0-9]+' /tmp/lean.log || grep -oE '[0-9]+ (newly|to be) installed' /tmp/lean.log)"
    apt_get install /srv/deb/new.deb
    say "installed $(msrecd --version) with $(grep -c '^Setting up' /tmp/apt.log) packages of Debian $(cat /etc/debian_version), systemd $(systemctl --version | awk 'NR == 1 {print $2}')"
    getent passwd msrecd >/dev/null || fail "no user"
    [[ $(stat -c '%U %a' "$recordings") == "msrecd 750" ]] || fail "the recordings' folder: $(stat -c '%U %a' "$recordings")"
    [[ $(stat -c '%U:%G %a' "$config") == "root:msrecd 640" ]] || fail "the configuration may be read by all"
    is ActiveState inactive || fail "started unasked"
    ! systemctl --quiet is-enabled msrecd || fail "enabled unasked"
    for page in 1/msrecd.1 5/msrecd.toml.5; do [[ -s /usr/share/man/man$page.gz ]] || fail "no man page $page"; done
    msrecd check-config >/dev/null || fail "the configuration that is installed is not valid"
    systemd-analyze --no-pager --threshold=13 security msrecd >/dev/null || fail "the sandbox: $(systemd-analyze --no-pager security msrecd | tail -n 1)"
    say "systemd-analyze security: $(systemd-analyze --no-pager security msrecd | tail -n 1 | grep -oE '[0-9.]+ [A-Z]+')"

    time_is_set
    hardware
    edit_one_line
    local began=$EPOCHREALTIME
    systemctl start msrecd || fail "it does not start"
    say "one line edited, started: READY=1 after $(awk "BEGIN {printf \"%.1f\", $EPOCHREALTIME - $began}") s"
    wait_for 60 "a recording" is_recording
    local id
    id=$(recording)
    wait_for 60 "recorder and broker in the status" is StatusText "recording 1/1, mqtt online"
    sleep 2 # something to see
    msrecd ctl cam0 split >/dev/null || fail "no answer to a command by the broker that came along"
    wait_for 60 "a finished chunk" has_chunks 1
    local chunk
    chunk=$(chunks | head -n 1)
    (($(pictures "$chunk") > 0)) || fail "no picture in $chunk"
    [[ $(stat -c '%U:%G %a' "$chunk") == "msrecd:msrecd 640" ]] || fail "whose is $chunk: $(stat -c '%U:%G %a' "$chunk")"
    wait_for 10 "the chunk in the journal, in the recorder's field" sh -c "journalctl -u msrecd MSRECD_RECORDER=cam0 -o cat | grep -qF 'cam0: chunk '"
    say "memory while it records, of the daemon and its $(($(pgrep -c -u msrecd) - 1)) other processes: $(memory)"
    say "a recording exists: ${chunk#"$recordings"/}, $(pictures "$chunk") pictures; status: $(of_service StatusText)"

    printf 'retention = { max_age = "7d" }\n' >>"$config"
    systemctl reload msrecd || fail "it does not reload"
    wait_for 30 "the new configuration" journal_has "configuration loaded"
    printf 'chunk_durations = "1s"\n' >>"$config"
    ! systemctl reload msrecd 2>/dev/null || fail "an invalid configuration was reloaded without a word"
    wait_for 10 "the key in the journal" journal_has "recorder[0].chunk_durations"
    sed -i '$d' "$config"
    [[ $(recording) == "$id" ]] || fail "a reload interrupted the recording: $id, $(recording)"
    is ActiveState active || fail "the reload ended it"
    say "reloaded while recording; an invalid configuration is refused and named, the recording goes on"

    systemctl stop msrecd
    is Result success || fail "stopped with $(of_service Result)"
    ! is_recording || fail "a chunk is left open by the stop"
    journalctl --quiet --sync
    [[ -z $(journalctl -u msrecd -p err -o cat _COMM=msrecd) ]] || fail "errors in the journal of a good day"
    proves "the stop"

    rclone_part
    clock_part
    proves "off-load and clocks"

    keep_recordings
    rm /etc/msrecd/conf.d/hardware.toml # the administrator's own file, no package's
    apt_get purge msrecd
    [[ ! -e /var/lib/msrecd-rclone ]] || fail "passwords of the store are left behind by the purge"
    ! systemctl --quiet is-active msrecd-rclone.socket || fail "the socket of rclone outlives the purge"
    same_recordings "the purge"
    is LoadState not-found || fail "systemd still knows it: $(of_service LoadState)"
    local left
    left=$(find / -xdev \( -path /srv -o -path /proc -o -path "$recordings" -o -path /var/cache/apt -o -path /var/log/journal \) -prune -o -name '*msrecd*' -print | grep -vx /var/lib/msrecd || true)
    [[ -z $left ]] || fail "left behind by the purge: $left"
    say "purged: $(chunks | wc -l) chunks stay, and nothing else"
    rm -rf /var/lib/msrecd
}

# --- the second part: years later ------------------------------------------------------------------------------------

second_part() {
    files >"$notes/before"
    apt_get install /srv/deb/old.deb
    hardware
    edit_one_line
    systemctl enable --quiet --now msrecd
    wait_for 60 "a recording" is_recording
    journal_has "msrecd 0.0.9 is ready" || fail "another version runs"
    sleep 2
    msrecd ctl cam0 split >/dev/null || fail "no answer to a command"
    wait_for 60 "a finished chunk" has_chunks 1
    wait_for 60 "the next chunk" is_recording
    local id done_before
    id=$(recording) done_before=$(chunks | head -n 1)
    sha256sum "$done_before" >"$notes/done"

    apt_get install /srv/deb/new.deb
    wait_for 60 "the new version" journal_has "msrecd $(msrecd --version | awk '{print $NF}') is ready"
    wait_for 60 "a recording by the new version" records_anew "$id"
    [[ -n $id ]] || fail "no recording to interrupt"
    is_unchanged "the upgrade"
    sha256sum --status -c "$notes/done" || fail "the upgrade changed a finished chunk"
    local manifest
    manifest=$(find "$recordings" -name "$id.jsonl")
    tail -n 1 "$manifest" | grep -q '"final": *true' || fail "the recording that the upgrade ended has no end: $(tail -n 1 "$manifest")"
    ! grep -q '"recovered": *true' "$manifest" || fail "the upgrade tore a chunk"
    say "upgraded from 0.0.9 to $(dpkg-query -W -f '${Version}' msrecd) while recording: that recording was finished, the next one runs"

    id=$(recording)
    systemctl kill --signal=KILL --kill-whom=main msrecd
    wait_for 60 "a recording after SIGKILL" records_anew "$id"
    wait_for 30 "the torn chunk, recovered" sh -c "grep -q '\"recovered\": *true' '$(find "$recordings" -name "$id.jsonl" -o -name "$id*.part" | head -n 1 | xargs dirname)/$id.jsonl'"
    say "killed: started again by systemd, the torn chunk recovered, the next recording runs"

    mkdir -p /etc/systemd/system/msrecd.service.d
    printf '[Service]\nWatchdogSec=6s\nTimeoutAbortSec=2s\nRestartSec=1s\n' >/etc/systemd/system/msrecd.service.d/test.conf
    systemctl daemon-reload
    systemctl restart msrecd
    wait_for 60 "a recording" is_recording
    id=$(recording)
    kill -STOP "$(of_service MainPID)"
    wait_for 60 "a restart by the watchdog" is NRestarts 1
    wait_for 60 "a recording after it" records_anew "$id"
    rm -r /etc/systemd/system/msrecd.service.d
    systemctl daemon-reload
    say "frozen: the watchdog noticed, the next recording runs"

    recording >"$notes/id"
    echo third >"$notes/part"
    systemctl reboot
    sleep infinity # ended with the machine
}

third_part() {
    local id
    id=$(<"$notes/id")
    wait_for 60 "a recording after the reboot" records_anew "$id"
    tail -n 1 "$(find "$recordings" -name "$id.jsonl")" | grep -q '"final": *true' || fail "the recording that the reboot ended has no end"
    say "rebooted while recording: that recording was finished, the next one runs"

    apt_get remove msrecd
    ! is_recording || fail "a chunk is left open by the removal"
    [[ ! -e /usr/bin/msrecd ]] || fail "still there after the removal"
    [[ -z $(pgrep -u msrecd || true) ]] || fail "still running after the removal"
    is_unchanged "the removal"
    keep_recordings
    apt_get install /srv/deb/new.deb
    is_unchanged "installing again"
    wait_for 60 "a recording once it is installed again" is_recording
    say "removed: configuration and recordings stay; installed again: it records as before"

    systemctl stop msrecd
    proves "all that"
    keep_recordings
    rm /etc/msrecd/conf.d/hardware.toml
    apt_get purge msrecd
    same_recordings "the purge"
    files >"$notes/after"
    local left gone
    left=$(LC_ALL=C comm -13 "$notes/before" "$notes/after" | grep -v '^/var/lib/msrecd\(/recordings\(/\(cam0\|\.msrecd\)\(/.*\)\?\)\?\)\?$' || true) # .msrecd: the medium's identity
    [[ -z $left ]] || fail "left behind by the purge: $left"
    gone=$(LC_ALL=C comm -23 "$notes/before" "$notes/after")
    [[ -z $gone ]] || fail "taken along by the purge: $gone"
    say "purged: $(chunks | wc -l) chunks and the identity of their medium stay, and nothing else"
}

case $(cat "$notes/part" 2>/dev/null) in
third) third_part ;;
*)
    first_part
    second_part
    ;;
esac
