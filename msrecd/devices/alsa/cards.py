"""The sound cards of the machine, as the kernel lists them in /proc/asound and /sys/class/sound; no card is opened.

ALSA's own list of PCM names is full of plug-ins that lead to the same card. Here is one entry for each capture device
of real hardware, with an identity that does not depend on the order in which cards were found.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msrecd.devices.base import stable_id
from msrecd.devices.holders import Holder, command_of, who_has_open
from msrecd.devices.usb import UsbIdentity, identify

log = logging.getLogger(__name__)

_CARD_LINE = re.compile(r"^\s*(?P<number>\d+) \[(?P<id>[^\]]*)\]: (?P<driver>.*?) - (?P<name>.*)$")
_RATE_RANGE = re.compile(r"(\d+) - (\d+)")
_VIRTUAL_DRIVERS = {"Loopback", "Dummy"}
STANDARD_RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 64000, 88200, 96000, 176400, 192000, 384000)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureDevice:
    """One capture device of one card.

    address: what alsa-lib opens it by; card ids may change with the order of discovery, so it is good for now only.
    key: what the stable id is made of. place: what the group id is made of.
    subdevices: how many may have it open at once; free_subdevices: how many more.
    """

    card: int
    card_id: str
    device: int
    driver: str
    label: str
    key: str
    place: str
    usb: UsbIdentity | None
    subdevices: int
    free_subdevices: int

    @property
    def address(self) -> str:
        return f"hw:CARD={self.card_id},DEV={self.device}"

    @property
    def device_id(self) -> str:
        return stable_id("alsa", "audioinput", self.key)

    @property
    def group_id(self) -> str:
        return stable_id("group", self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardLine:
    """One entry of /proc/asound/cards."""

    number: int
    id: str
    driver: str
    name: str


def parse_cards(text: str) -> list[CardLine]:
    """The entries of /proc/asound/cards (two lines each; the second only repeats)."""
    return [
        CardLine(number=int(m["number"]), id=m["id"].strip(), driver=m["driver"].strip(), name=m["name"].strip())
        for m in map(_CARD_LINE.match, text.splitlines())
        if m
    ]


def parse_fields(text: str) -> dict[str, str]:
    """`name: value` lines, as in /proc/asound/cardX/pcmYc/info."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a microphone can do, default first; sample sizes in bits."""

    sample_rates: tuple[int, ...]
    channel_counts: tuple[int, ...]
    sample_sizes: tuple[int, ...]


def parse_usb_stream(text: str) -> Capabilities | None:
    """Capabilities out of /proc/asound/cardX/streamY of a USB card, which can be read while somebody records."""
    _, found, capture = text.partition("\nCapture:")
    if not found:
        return None
    rates: set[int] = set()
    channels: set[int] = set()
    sizes: set[int] = set()
    for line in capture.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "Format":
            sizes |= {size for word, size in _FORMAT_SIZES.items() if value.strip().startswith(word)}
        elif name == "Channels" and value.strip().isdigit():
            channels.add(int(value))
        elif name == "Rates":
            span = _RATE_RANGE.search(value)
            if span:
                rates |= {rate for rate in STANDARD_RATES if int(span[1]) <= rate <= int(span[2])}
            else:
                rates |= {int(word) for word in re.findall(r"\d+", value)}
    if not rates or not channels or not sizes:
        return None
    return preferred(rates, channels, sizes)


_FORMAT_SIZES = {"S16_LE": 16, "S24_3LE": 24, "S24_LE": 24, "S32_LE": 32}


def preferred(rates: set[int], channels: set[int], sizes: set[int]) -> Capabilities:
    """Tuples with the default first: 48 kHz (else 44.1, else the highest), stereo (else the fewest), 16 bits."""
    return Capabilities(
        sample_rates=_first(rates, (48000, 44100, max(rates))),
        channel_counts=_first(channels, (2, 1, min(channels))),
        sample_sizes=_first(sizes, (16, 24, 32)),
    )


def _first(values: set[int], wanted: Sequence[int]) -> tuple[int, ...]:
    default = next(value for value in (*wanted, *values) if value in values)
    return (default, *sorted(values - {default}))


class AlsaCards:
    """Reads the kernel's lists; every call looks anew. Any thread."""

    def __init__(self, *, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> None:
        self._proc = proc
        self._sys = sys

    def capture_devices(self) -> list[CaptureDevice]:
        """All capture devices, real cards before loopbacks, then in the kernel's order. A broken card is left out."""
        devices: list[CaptureDevice] = []
        for card in parse_cards(_read(self._proc / "asound" / "cards")):
            try:
                devices.extend(self._of_card(card))
            except (OSError, ValueError) as exc:
                log.warning("sound card %d (%s) left out: %s", card.number, card.id, exc)
        devices.sort(key=lambda device: (device.driver in _VIRTUAL_DRIVERS, device.card, device.device))
        return _without_twins(devices)

    def holder(self, card: int, device: int) -> Holder | None:
        """Who has the capture device open; None when nobody has, or it cannot be told."""
        folder = self._proc / "asound" / f"card{card}" / f"pcm{device}c"
        for status in sorted(folder.glob("sub*/status")):
            pid = parse_fields(_read(status)).get("owner_pid", "")
            if pid.isdigit() and int(pid) > 0:
                return Holder(pid=int(pid), command=command_of(int(pid), self._proc))
        return who_has_open([f"/dev/snd/pcmC{card}D{device}c"], self._proc)

    def usb_capabilities(self, card: int, device: int) -> Capabilities | None:
        """What a USB card's descriptors say, without opening it; None for other cards."""
        return parse_usb_stream("\n" + _read(self._proc / "asound" / f"card{card}" / f"stream{device}"))

    def _of_card(self, card: CardLine) -> Iterator[CaptureDevice]:
        sys_card = self._sys / "class" / "sound" / f"card{card.number}"
        usb = identify(sys_card / "device")
        place = usb.place if usb else _path_key(sys_card, card)
        for folder in sorted((self._proc / "asound" / f"card{card.number}").glob("pcm*c")):
            info = parse_fields(_read(folder / "info"))
            number = int(info.get("device", folder.name.removeprefix("pcm").removesuffix("c")))
            total = int(info.get("subdevices_count", "1"))
            yield CaptureDevice(
                card=card.number,
                card_id=card.id,
                device=number,
                driver=card.driver,
                label=_label(card, info, number),
                key=_key(usb, place, number),
                place=place,
                usb=usb,
                subdevices=total,
                free_subdevices=int(info.get("subdevices_avail", total)),
            )


def _key(usb: UsbIdentity | None, place: str, device: int) -> str:
    if usb is not None and usb.serial:  # the same microphone in another port is the same microphone
        return f"usb {usb.product} {usb.serial} {device}"
    return f"{place} {device}"


def _path_key(sys_card: Path, card: CardLine) -> str:
    """Where a card that is not on the USB sits: its place among the kernel's devices, without the card's number."""
    try:
        parent = str((sys_card / "device").resolve(strict=True))
    except OSError:
        parent = ""
    return f"{parent.partition('/devices/')[2] or 'card'} {card.id}"


def _label(card: CardLine, info: dict[str, str], device: int) -> str:
    pcm = info.get("name", "")
    return card.name if device == 0 or not pcm or pcm == card.name else f"{card.name}: {pcm}"


def _without_twins(devices: list[CaptureDevice]) -> list[CaptureDevice]:
    """Two devices that claim the same serial number: the second and later ones are told apart by where they are."""
    seen: set[str] = set()
    keys: dict[int, str] = {}
    for index in sorted(range(len(devices)), key=lambda index: devices[index].place):
        device = devices[index]
        keys[index] = device.key if device.key not in seen else f"{device.key} {device.place}"
        seen.add(keys[index])
    return [replace(device, key=keys[index]) for index, device in enumerate(devices)]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
