#!/usr/bin/env bash
# Set-up for development and demo: Debian packages that are missing, then a virtual environment in .venv. With --tests:
# the programs, too, that only tests need (a browser, a network camera). Run by `make`; safe to run again. Needs
# Debian 12 or newer, Raspberry Pi OS, or the tools named below by other means.
#
# PYTHON=/path/to/python3.x chooses the interpreter; VENV=folder chooses the folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
STAMP=$VENV/.msrecd-setup
tests=no
[[ ${1:-} == --tests ]] && tests=yes
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf '%s\n' "setup: $*"; }
fail() {
    printf '%s\n' "setup: error: $1" >&2
    shift
    for line in "$@"; do printf '%s\n' "setup:        $line" >&2; done
    exit 1
}

# --- Python ---------------------------------------------------------------------------------------------------------
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

choose_python() { # the system's interpreter first: apt's extension modules (picamera2, libcamera) are built for it
    local candidate
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

python=${PYTHON:-}
if [[ -n $python ]]; then
    fits "$python" || fail "PYTHON=$python is not a Python 3.11, 3.12 or 3.13" "choose another, or leave PYTHON unset"
else
    python=$(choose_python) || python=/usr/bin/python3 # perhaps apt can bring it
fi

# --- Debian packages ------------------------------------------------------------------------------------------------
missing=()
need() { # need PACKAGE REASON TEST...: one line and one entry for each package whose test fails
    local package=$1 reason=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        say "missing: $(printf '%-18s' "$package") $reason"
        missing+=("$package")
    fi
}
has() { command -v "$1"; }
header() { echo "#include <$1>" | cc -E - ; }

[[ $python == /usr/bin/python3 ]] && need python3 "the interpreter" fits /usr/bin/python3
if [[ $(readlink -f "$python" 2>/dev/null || true) == /usr/bin/python3* || ! -e $python ]]; then
    need python3-venv "virtual environments" "$python" -c 'import venv, ensurepip'
    need python3-dev "headers, to build extension modules" \
        "$python" -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("include"), "Python.h").stat()'
fi
need gcc "builds extension modules and the simulated microphone of the tests" has cc
need libc6-dev "headers of the C library" header stdio.h
need pkg-config "finds libraries for the builds" has pkg-config
need libasound2-dev "ALSA headers, for pyalsaaudio" header alsa/asoundlib.h
need libsystemd-dev "systemd headers, for systemd-python" header systemd/sd-daemon.h
need mosquitto "the MQTT broker that demo and tests start for themselves" has mosquitto
need mosquitto-clients "the commands at the broker that the documentation shows" has mosquitto_pub
need ffmpeg "the tests judge every recording with ffprobe" has ffprobe
need openssl "the tests make certificates for TLS" has openssl
need systemd "systemd-analyze judges the unit file" has systemd-analyze
need shellcheck "judges the shell scripts" has shellcheck
need util-linux "private mounts for the tests of full and broken disks" has unshare
if [[ $tests == yes ]]; then
    need dosfstools "the tests record on FAT" has mkfs.vfat
    need opencv-doc "a film of pedestrians for the motion trigger" test -e /usr/share/doc/opencv-doc/examples/data/vtest.avi
    need rclone "off-load to what it reaches" has rclone
    need chromium "the tests play recordings in a browser" has chromium
    need chromium-driver "it steers the browser" has chromedriver
    rtsp() { /usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")'; }
    need python3-gi "a network camera for the tests" rtsp
    need gir1.2-gst-rtsp-server-1.0 "the same" rtsp
    need gstreamer1.0-plugins-good "the same" rtsp
fi

install_packages() {
    local sudo=() policy=/usr/sbin/policy-rc.d quiet=no status=0
    command -v apt-get >/dev/null 2>&1 ||
        fail "there is no apt-get here" "install by your system's own means what is listed above, then run this again"
    if [[ $(id -u) -ne 0 ]]; then
        command -v sudo >/dev/null 2>&1 ||
            fail "installing packages needs root, and there is no sudo" "as root: apt-get install ${missing[*]}"
        sudo=(sudo)
        say "installing with sudo (it may ask for your password)"
    fi
    # A broker of the system is not wanted: keep the package from starting and enabling one.
    if [[ " ${missing[*]} " == *" mosquitto "* && ! -e $policy ]]; then
        quiet=yes
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod 755 "$policy"
    fi
    apt_install() {
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            -o DPkg::Lock::Timeout=300 "${missing[@]}"
    }
    say "apt-get install ${missing[*]}"
    if ! apt_install >"$log" 2>&1; then
        say "not found or too old lists; apt-get update, then once more"
        { "${sudo[@]}" apt-get update -q -o DPkg::Lock::Timeout=300 && apt_install; } >>"$log" 2>&1 || status=1
    fi
    if [[ $quiet == yes ]]; then
        "${sudo[@]}" rm -f "$policy"
        if [[ -d /run/systemd/system ]]; then
            "${sudo[@]}" systemctl disable --quiet mosquitto.service 2>/dev/null || true
            say "the system's own mosquitto service is off (on again: sudo systemctl enable --now mosquitto)"
        fi
    fi
    if [[ $status -ne 0 ]]; then
        tail -n 15 "$log" >&2
        fail "apt-get could not install the packages; its last lines stand above" \
            "try by hand: ${sudo[*]} apt-get update && ${sudo[*]} apt-get install ${missing[*]}"
    fi
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ((${#missing[@]})); then
    install_packages
fi
if [[ ! -e $python ]] || ! fits "$python"; then
    python=$(choose_python) ||
        fail "no Python 3.11, 3.12 or 3.13 found" \
            "Debian 12, 13 and Raspberry Pi OS bring one; elsewhere: make PYTHON=/path/to/python3.13 ..."
fi

# --- Virtual environment --------------------------------------------------------------------------------------------
options=()
constraints=()
if "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("picamera2") is None)' 2>/dev/null; then
    # picamera2 and libcamera come from apt only. Their compiled parts need apt's numpy: pip must not bring another.
    options=(--system-site-packages)
    numpy=$("$python" -c 'import numpy; print(numpy.__version__)')
    constraints=(-c "$VENV/constraints.txt")
fi

wanted=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [[ -x $VENV/bin/python ]]; then
    found=$("$VENV/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo broken)
    if [[ $found == broken || (-n ${PYTHON:-} && $found != "$wanted") ]]; then
        say "$VENV is of Python $found: making it anew with $wanted"
        rm -rf "$VENV"
    fi
fi
if [[ ! -x $VENV/bin/python ]]; then
    say "virtual environment in $VENV with $python (Python $wanted${options[*]:+, sees the system\'s picamera2})"
    "$python" -m venv "${options[@]}" "$VENV" ||
        fail "could not make the virtual environment" "is the disk full? (df -h .) Otherwise remove $VENV and try again"
fi
[[ -n ${numpy:-} ]] && echo "numpy==$numpy" >"$VENV/constraints.txt"

say "Python packages (a few minutes on a Raspberry Pi)"
if ! "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "${constraints[@]}" -e '.[dev]' >"$log" 2>&1; then
    tail -n 25 "$log" >&2
    fail "pip could not install the Python packages; its last lines stand above" \
        "without a network it cannot work; otherwise: rm -rf $VENV and try again"
fi
"$VENV/bin/python" -c 'import av, alsaaudio, astral, cronsim, h11, numpy, paho.mqtt, pyudev, systemd.daemon' ||
    fail "a Python package was installed but does not load" "rm -rf $VENV and try again"
touch "$STAMP"
if [[ $tests == yes ]]; then
    # The page is opened in the chromium above, with axe as the judge of what a screen reader finds: nothing is downloaded
    # but two Python packages, and where there are none for this machine, those tests are left out.
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        'playwright>=1.45' 'axe-playwright-python>=0.1.4' >"$log" 2>&1 ||
        say "playwright could not be installed; the tests of the page are left out: $(tail -n 1 "$log")"
    # The real picamera2 for its tests over a stand-in for libcamera: apart, so that everything else sees none, and without
    # what it needs for displays, FFmpeg and neural networks.
    if [[ ! -d .cache/picamera2/picamera2 ]]; then
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target .cache/picamera2 \
            picamera2 simplejpeg pidng piexif pillow videodev2 >"$log" 2>&1 ||
            say "picamera2 could not be installed; its tests are left out: $(tail -n 1 "$log")"
    fi
    # A real S3 server for the tests of off-load, where there is Go to build it; elsewhere a stand-in is all they have.
    if [[ ! -x .cache/versitygw/versitygw ]]; then
        go=$(command -v go || echo /usr/local/go/bin/go)
        if [[ -x $go ]]; then
            say "versitygw, an S3 server for the tests (a few minutes)"
            GOBIN=$PWD/.cache/versitygw "$go" install github.com/versity/versitygw/cmd/versitygw@v1.8.0 >"$log" 2>&1 ||
                say "versitygw could not be built; its tests are left out: $(tail -n 1 "$log")"
        else
            say "no Go here to build versitygw with; its tests are left out"
        fi
    fi
    touch "$STAMP-tests"
fi
say "ready: $("$VENV/bin/python" -V), $("$VENV/bin/python" -c 'import av; print("PyAV", av.__version__)')"
