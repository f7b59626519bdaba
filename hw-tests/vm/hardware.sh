#!/usr/bin/env bash
# In the machine: the hardware that is not there. hardware.sh start, or hardware.sh camera|encoder|microphone out|in,
# or hardware.sh camera in:i420|in:yuy2|in:mjpeg, which gives its pictures in that format.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
loopback=/sys/bus/platform/drivers/snd_aloop

wait_for() { # until a file like this exists, or does not any more: wait_for yes|no PATTERN
    for _ in $(seq 150); do
        if compgen -G "$2" >/dev/null; then [[ $1 == yes ]] && return; else [[ $1 == no ]] && return; fi
        sleep 0.1
    done
    echo "hardware.sh: waited in vain for $1 $2" >&2
    exit 1
}
camera_in() { # camera_in [FORMAT]; returns when the kernel and udev have it: that is when a camera has come back
    systemctl reset-failed vm-camera.service 2>/dev/null || true
    systemd-run --quiet --collect --unit=vm-camera.service --property=StandardError=journal \
        /usr/bin/python3 "$here/usbcam.py" --name "Virtual USB Camera" --format "${1:-i420}"
    wait_for yes "/dev/v4l/by-id/*index0"
}
tone_in() { # somebody has to speak; the loopback card gives silence otherwise
    systemd-run --quiet --collect --unit=vm-tone.service --property=Restart=always --property=RestartSec=1 \
        --property=StartLimitIntervalSec=0 \
        /usr/bin/aplay --quiet --device=hw:CARD=Loopback,DEV=0,SUBDEV=0 /run/vm-tone.wav
}

case "$*" in
start)
    modprobe vh264 # first: it wants to be /dev/video11
    modprobe snd-aloop
    modprobe vhci-hcd
    modprobe vusbfw
    modprobe uvcvideo
    ffmpeg -v error -y -f lavfi -i "sine=frequency=440:sample_rate=48000:duration=600" -ac 2 -c:a pcm_s16le /run/vm-tone.wav
    camera_in
    tone_in
    ;;
"camera out") systemctl stop vm-camera.service ;;
"camera in") camera_in ;;
"camera in:i420" | "camera in:yuy2" | "camera in:mjpeg") camera_in "${2#in:}" ;;
"camera hold") # by another program, until it is released
    systemd-run --quiet --collect --unit=vm-holder.service --property=StandardOutput=null /usr/bin/cam --camera 1 --capture
    sleep 3
    ;;
"camera release") systemctl stop vm-holder.service ;;
"drivers out") # as before they are loaded, the ones of the classes included where nothing else needs them
    systemctl stop vm-tone.service vm-camera.service
    modprobe -r snd-aloop
    modprobe -r uvcvideo
    modprobe -r snd 2>/dev/null || true
    ;;
"drivers in")
    modprobe snd-aloop
    modprobe uvcvideo
    systemctl is-active --quiet vm-camera.service || camera_in
    systemctl is-active --quiet vm-tone.service || tone_in
    ;;
"board pi5") # before the driver of its image processor is there
    mkdir -p /run/vm-board
    printf 'Raspberry Pi 5 Model B Rev 1.0\0' >/run/vm-board/model
    printf 'raspberrypi,5-model-b\0brcm,bcm2712\0' >/run/vm-board/compatible
    modprobe vpisp
    ;;
"board isp") echo 1 >/sys/module/vpisp/parameters/isp ;;
"board none") modprobe -r vpisp ;;
"encoder out") modprobe -r vh264 ;;
"encoder in") modprobe vh264 ;;
"camera freeze") systemctl kill --signal=USR1 vm-camera.service ;;
"microphone out") echo snd_aloop.0 >$loopback/unbind ;;
"microphone in")
    echo snd_aloop.0 >$loopback/bind
    wait_for yes "/dev/snd/pcmC*c"
    ;;
*)
    echo "usage: hardware.sh start | camera out|in|in:FORMAT|freeze|hold|release | microphone out|in | drivers out|in | board pi5|isp|none" >&2
    exit 2
    ;;
esac
