"""Sound cards out of /proc and /sys as a Raspberry Pi has them."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from msrecd.control.device_list import device_list
from msrecd.devices.alsa import backend as alsa
from msrecd.devices.alsa.backend import AlsaBackend
from msrecd.devices.alsa.cards import AlsaCards, CaptureDevice, parse_cards, parse_usb_stream
from msrecd.devices.base import stable_id
from msrecd.devices.holders import who_has_open
from msrecd.devices.usb import identify, place_of_camera, trusted_serial
from msrecd.dom.exceptions import AbortError, NotAllowedError, NotFoundError, NotReadableError
from msrecd.media.devices import MediaDevices

CONTROLLER = "/sys/firmware/devicetree/base/soc/usb@7e980000"

STREAM0 = """\
C-Media Electronics Inc. USB PnP Sound Device at usb-3f980000.usb-1.3, full speed : USB Audio

Playback:
  Status: Stop
  Interface 1
    Altset 1
    Format: S16_LE
    Channels: 2
    Endpoint: 0x01 (1 OUT) (ADAPTIVE)
    Rates: 48000, 44100
    Bits: 16
    Channel map: FL FR

Capture:
  Status: Running
    Interface = 2
    Altset = 1
    URBs = 3 [ 7 7 7 ]
    Packet Size = 100
    Momentary freq = 48000 Hz (0x30.0000)
  Interface 2
    Altset 1
    Format: S16_LE
    Channels: 1
    Endpoint: 0x82 (2 IN) (ASYNC)
    Rates: 48000, 44100
    Bits: 16
    Channel map: MONO
"""


class Machine:
    """A /proc and a /sys to put cards into."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.sys = root / "sys"
        (self.proc / "asound").mkdir(parents=True)
        (self.sys / "class" / "sound").mkdir(parents=True)
        self.lines: dict[int, str] = {}
        self.controller = self.sys / "firmware" / "devicetree" / "base" / "soc" / "usb@7e980000"
        self.controller.mkdir(parents=True)

    @property
    def cards(self) -> AlsaCards:
        return AlsaCards(proc=self.proc, sys=self.sys)

    def add(self, number: int, card_id: str, driver: str, name: str, parent: Path, *, devices: dict[str, int]) -> None:
        """A card whose sysfs parent is `parent`; devices: "pcm0c" -> subdevices."""
        self.lines[number] = f"{number:2} [{card_id:15}]: {driver} - {name}\n                      {name} somewhere\n"
        self._write_cards()
        card = parent / "sound" / f"card{number}"
        card.mkdir(parents=True)
        (card / "device").symlink_to(parent)
        (self.sys / "class" / "sound" / f"card{number}").symlink_to(card)
        for device, subdevices in devices.items():
            folder = self.proc / "asound" / f"card{number}" / device
            for sub in range(subdevices):
                (folder / f"sub{sub}").mkdir(parents=True)
                (folder / f"sub{sub}" / "status").write_text("closed\n")
            self.set_free(number, device, subdevices, subdevices)

    def set_free(self, number: int, device: str, total: int, free: int) -> None:
        index = device.removeprefix("pcm")[:-1]
        (self.proc / "asound" / f"card{number}" / device / "info").write_text(
            f"card: {number}\ndevice: {index}\nsubdevice: 0\nstream: CAPTURE\nid: USB Audio\nname: USB Audio\n"
            f"subname: subdevice #0\nclass: 0\nsubclass: 0\nsubdevices_count: {total}\nsubdevices_avail: {free}\n"
        )

    def remove(self, number: int) -> None:
        del self.lines[number]
        self._write_cards()
        (self.sys / "class" / "sound" / f"card{number}").unlink()

    def _write_cards(self) -> None:
        (self.proc / "asound" / "cards").write_text("".join(self.lines[n] for n in sorted(self.lines)))

    def usb(self, bus_path: str, *, product: str = "0d8c:0014", serial: str = "", bus: int = 1) -> Path:
        """The sysfs folder of the audio interface of a USB device, "1.3" for port 3 of a hub in port 1."""
        host = self.sys / "devices" / "platform" / "soc" / "3f980000.usb"
        if not host.exists():
            host.mkdir(parents=True)
            (host / "of_node").symlink_to(self.controller)
        device = host / f"usb{bus}" / f"{bus}-1" / f"{bus}-{bus_path}"
        interface = device / f"{bus}-{bus_path}:1.0"
        interface.mkdir(parents=True, exist_ok=True)
        vendor, _, number = product.partition(":")
        (device / "idVendor").write_text(vendor + "\n")
        (device / "idProduct").write_text(number + "\n")
        if serial:
            (device / "serial").write_text(serial + "\n")
        return interface


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def add_headphones(machine: Machine, number: int = 0) -> None:
    parent = machine.sys / "devices" / "platform" / "soc" / "soc:audio" / "bcm2835_headphones"
    parent.mkdir(parents=True, exist_ok=True)
    machine.add(number, "Headphones", "bcm2835_headpho", "bcm2835 Headphones", parent, devices={"pcm0p": 8})


def add_microphone(machine: Machine, number: int, port: str = "1.3", **usb: Any) -> None:
    card_id = "Device" if number == 1 else f"Device_{number}"
    machine.add(
        number, card_id, "USB-Audio", "USB PnP Sound Device", machine.usb(port, **usb), devices={"pcm0c": 1, "pcm0p": 1}
    )


def only(devices: list[CaptureDevice]) -> CaptureDevice:
    (device,) = devices
    return device


def test_cards_without_a_microphone_are_no_devices(machine: Machine) -> None:
    add_headphones(machine)
    assert machine.cards.capture_devices() == []


def test_no_sound_at_all(tmp_path: Path) -> None:
    assert AlsaCards(proc=tmp_path, sys=tmp_path).capture_devices() == []


@pytest.mark.promise("ids-stay")
def test_the_same_microphone_under_another_card_number(machine: Machine) -> None:
    add_headphones(machine)
    add_microphone(machine, 1)
    before = only(machine.cards.capture_devices())
    assert (before.address, before.label) == ("hw:CARD=Device,DEV=0", "USB PnP Sound Device")
    machine.remove(1)
    assert machine.cards.capture_devices() == []
    machine.add(3, "Device_1", "USB-Audio", "USB PnP Sound Device", machine.usb("1.3") / "again", devices={"pcm0c": 1})
    after = only(machine.cards.capture_devices())
    assert after.address == "hw:CARD=Device_1,DEV=0"
    assert after.device_id == before.device_id
    assert after.group_id == before.group_id


def test_a_serial_number_follows_the_microphone_into_another_port(machine: Machine, tmp_path: Path) -> None:
    add_microphone(machine, 1, "1.3", serial="A1B2C3D4")
    other = Machine(tmp_path / "other")
    add_microphone(other, 1, "1.2", serial="A1B2C3D4")
    first, second = only(machine.cards.capture_devices()), only(other.cards.capture_devices())
    assert first.device_id == second.device_id
    assert "A1B2C3D4" not in first.device_id


@pytest.mark.parametrize("serial", ["", "000000000000", "1234567890", "0123456789AB", "1"])
def test_without_a_serial_number_the_port_counts(machine: Machine, serial: str) -> None:
    add_microphone(machine, 1, "1.3", serial=serial)
    add_microphone(machine, 2, "1.4", serial=serial)
    ids = [device.device_id for device in machine.cards.capture_devices()]
    assert len(set(ids)) == 2


def test_twins_with_one_serial_number_are_told_apart(machine: Machine) -> None:
    add_microphone(machine, 1, "1.4", serial="A1B2C3D4")
    add_microphone(machine, 2, "1.3", serial="A1B2C3D4")
    devices = machine.cards.capture_devices()
    assert [device.card for device in devices] == [1, 2]
    assert len({device.device_id for device in devices}) == 2
    alone = Machine(machine.proc.parent / "alone")
    add_microphone(alone, 1, "1.3", serial="A1B2C3D4")
    assert only(alone.cards.capture_devices()).device_id == devices[1].device_id  # the one in the first port


def test_the_number_of_the_bus_does_not_count(machine: Machine, tmp_path: Path) -> None:
    add_microphone(machine, 1, "1.3", bus=1)
    other = Machine(tmp_path / "other")
    add_microphone(other, 1, "1.3", bus=3)
    assert identify(other.usb("1.3", bus=3)) is not None
    one, two = only(machine.cards.capture_devices()), only(other.cards.capture_devices())
    assert one.usb is not None
    assert two.usb is not None
    assert one.usb.ports == two.usb.ports == "1.3"


def test_a_camera_and_its_microphone_are_one_group(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msrecd.devices.usb._DEVICETREE", str(machine.sys / "firmware" / "devicetree"))
    machine.add(
        1, "C920", "USB-Audio", "HD Pro Webcam C920", machine.usb("1.2", product="046d:082d"), devices={"pcm0c": 1}
    )
    microphone = only(machine.cards.capture_devices())
    camera = "/base/soc/usb@7e980000-1.2:1.0-046d:082d"  # libcamera's id of the video interface
    assert microphone.group_id == stable_id("group", place_of_camera(camera) or "")


def test_csi_cameras_are_not_on_the_usb() -> None:
    assert place_of_camera("/base/soc/i2c0mux/i2c@1/imx219@10") is None


def test_loopbacks_come_last_and_are_busy_when_all_subdevices_are(machine: Machine) -> None:
    parent = machine.sys / "devices" / "platform" / "snd_aloop.0"
    parent.mkdir(parents=True)
    machine.add(0, "Loopback", "Loopback", "Loopback", parent, devices={"pcm0c": 8, "pcm1c": 8})
    add_microphone(machine, 1)
    devices = machine.cards.capture_devices()
    assert [(d.card_id, d.device) for d in devices] == [("Device", 0), ("Loopback", 0), ("Loopback", 1)]
    assert len({d.device_id for d in devices}) == 3
    assert devices[1].group_id == devices[2].group_id
    machine.set_free(0, "pcm0c", 8, 7)
    machine.set_free(0, "pcm1c", 8, 0)
    free = {(d.card_id, d.device): d.free_subdevices for d in machine.cards.capture_devices()}
    assert free["Loopback", 0] == 7
    assert free["Loopback", 1] == 0


def test_a_broken_card_does_not_hide_the_others(machine: Machine) -> None:
    add_microphone(machine, 1)
    add_microphone(machine, 2, "1.4")
    (machine.proc / "asound" / "card1" / "pcm0c" / "info").write_text("device: nonsense\n")
    assert only(machine.cards.capture_devices()).card == 2


def test_odd_lines_of_the_list() -> None:
    text = " 0 [PCH ]: HDA-Intel - HDA Intel PCH\n   HDA at 0\n10 [v4]: USB-Audio - Mic - with dash\n x\n--- none ---\n"
    assert [(c.number, c.id, c.driver, c.name) for c in parse_cards(text)] == [
        (0, "PCH", "HDA-Intel", "HDA Intel PCH"),
        (10, "v4", "USB-Audio", "Mic - with dash"),
    ]


def test_usb_descriptors_are_read_while_somebody_records() -> None:
    found = parse_usb_stream(STREAM0)
    assert found is not None
    assert (found.sample_rates, found.channel_counts, found.sample_sizes) == ((48000, 44100), (1,), (16,))
    ranged = parse_usb_stream(STREAM0.replace("Rates: 48000, 44100", "Rates: 8000 - 48000 (continuous)"))
    assert ranged is not None
    assert ranged.sample_rates[0] == 48000
    assert {8000, 44100} <= set(ranged.sample_rates)
    assert parse_usb_stream(STREAM0.partition("Capture:")[0]) is None


def test_serials() -> None:
    assert trusted_serial("A1B2C3D4") == "A1B2C3D4"
    assert trusted_serial("0000") == ""


class FakePcm:
    """pyalsaaudio's PCM: every opening fails as told."""

    failure = ""
    opened: tuple[str, ...] = ()

    def __init__(self, *, device: str, **_: Any) -> None:
        FakePcm.opened = (*FakePcm.opened, device)
        raise alsa.alsaaudio.ALSAAudioError(f"{FakePcm.failure} [{device}]")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[FakePcm]:
    FakePcm.opened = ()
    monkeypatch.setattr(alsa.alsaaudio, "PCM", FakePcm)
    return FakePcm


def hold(machine: Machine, *, pid: int, command: str) -> None:
    machine.set_free(1, "pcm0c", 1, 0)
    status = machine.proc / "asound" / "card1" / "pcm0c" / "sub0" / "status"
    status.write_text(f"state: RUNNING\nowner_pid   : {pid}\ntrigger_time: 1.5\n")
    (machine.proc / str(pid)).mkdir()
    (machine.proc / str(pid) / "comm").write_text(command + "\n")


@pytest.mark.effect("state-devices: detail")
@pytest.mark.promise("holder-is-named")
def test_a_busy_microphone_names_its_holder(machine: Machine, failing: type[FakePcm]) -> None:
    add_microphone(machine, 1)
    (machine.proc / "asound" / "card1" / "stream0").write_text(STREAM0)
    hold(machine, pid=77, command="arecord")
    backend = AlsaBackend(cards=machine.cards)
    (device,) = backend.describe()
    assert device.state == "busy"
    assert device.detail["holder"] == "arecord (pid 77)"
    (listed,) = asyncio.run(device_list(MediaDevices(backends=[backend])))
    assert (listed["state"], listed["detail"]["holder"]) == ("busy", "arecord (pid 77)")
    assert device.channel_counts == (1,)
    assert failing.opened == ()  # whoever records is not disturbed
    failing.failure = os.strerror(errno.EBUSY)
    with pytest.raises(NotReadableError, match=r"USB PnP Sound Device is busy: arecord \(pid 77\) has it open"):
        backend.open(device, {})


def test_a_busy_microphone_whose_holder_shows_only_in_its_open_files(machine: Machine, tmp_path: Path) -> None:
    add_microphone(machine, 1)
    machine.set_free(1, "pcm0c", 1, 0)
    folder = machine.proc / "42"
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text("pipewire\n")
    (folder / "fd" / "7").symlink_to("/dev/snd/pcmC1D0c")
    (machine.proc / "43").mkdir()  # its files cannot be looked at
    assert str(machine.cards.holder(1, 0)) == "pipewire (pid 42)"
    assert who_has_open(["/dev/snd/pcmC2D0c"], machine.proc) is None


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (errno.EACCES, NotAllowedError, "group audio"),
        (errno.ENODEV, NotFoundError, "not there any more"),
        (errno.EIO, NotReadableError, "cannot be opened"),
        (errno.EOVERFLOW, AbortError, "cannot be opened"),
    ],
)
def test_failures_to_open(
    machine: Machine, failing: type[FakePcm], number: int, error: type[Exception], text: str
) -> None:
    add_microphone(machine, 1)
    failing.failure = os.strerror(errno.EACCES)
    backend = AlsaBackend(cards=machine.cards)
    (device,) = backend.describe()  # that it may not be opened is no reason to hide it
    failing.failure = os.strerror(number)
    with pytest.raises(error, match=text):
        backend.open(device, {})


def test_unplugged_before_it_is_opened(machine: Machine, failing: type[FakePcm]) -> None:
    add_microphone(machine, 1)
    failing.failure = os.strerror(errno.EBUSY)
    backend = AlsaBackend(cards=machine.cards)
    (device,) = backend.describe()
    machine.remove(1)
    with pytest.raises(NotFoundError, match="not there any more"):
        backend.open(device, {})


class WidePcm:
    """A card with 24 significant bits in 32, as pyalsaaudio 0.10 shows it; reading S32_LE would overwrite memory."""

    def __init__(self, *, device: str, format: int = 2, rate: int = 48000, channels: int = 2, **_: Any) -> None:
        names = {alsa.alsaaudio.PCM_FORMAT_S32_LE: "S32_LE"}
        if device.startswith("plug:"):
            names |= {alsa.alsaaudio.PCM_FORMAT_S24_3LE: "S24_3LE", alsa.alsaaudio.PCM_FORMAT_S16_LE: "S16_LE"}
        self.name = names.get(format, "S32_LE")
        self.rate, self.channels = rate, channels
        self.closed = False

    def info(self) -> dict[str, Any]:
        bits = {"S32_LE": 24, "S24_3LE": 24, "S16_LE": 16}[self.name]
        return {
            "rate": self.rate,
            "channels": self.channels,
            "format_name": self.name,
            "significant_bits": bits,
            "period_size": 1024,
            "buffer_size": 32768,
        }

    def getformats(self) -> dict[str, int]:
        return {"S32_LE": 10}

    def getrates(self) -> list[int]:
        return [48000]

    def getchannels(self) -> list[int]:
        return [2]

    def set_tstamp_mode(self, mode: int) -> None: ...
    def set_tstamp_type(self, type: int) -> None: ...
    def state(self) -> int:
        return 2

    def read(self) -> tuple[int, bytes]:
        assert self.name != "S32_LE", "this read would have overwritten memory"
        return 0, b""

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("safe", [False, True])
def test_formats_that_old_pyalsaaudio_cannot_read_safely(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, *, safe: bool
) -> None:
    monkeypatch.setattr(alsa.alsaaudio, "PCM", WidePcm)
    monkeypatch.setattr(alsa, "_HAS_SAFE_READ", safe)
    if safe:
        monkeypatch.setattr(WidePcm, "read", lambda self: (0, b""))
    add_microphone(machine, 1)
    backend = AlsaBackend(cards=machine.cards)
    (device,) = backend.describe()
    assert device.sample_sizes == (32,)
    source = backend.open(device, {})
    source.close()
    assert source.format.sample_format == "s32"
    assert source._pcm._address == ("hw:CARD=Device,DEV=0" if safe else "plug:SLAVE='hw:CARD=Device,DEV=0'")
