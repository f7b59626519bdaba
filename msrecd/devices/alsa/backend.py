"""Microphones through alsa-lib: the only importer of pyalsaaudio, which translates its errors and its quirks.

Works with pyalsaaudio 0.10.0 (Debian 13) and 0.11. The quirks: parameters that the hardware does not have are replaced
silently, so what was asked for is compared with what came; `read()` of 0.10 hides overruns (`AlsaSource` looks at the
state) and takes too small a buffer where a sample has fewer significant bits than its container, which would overwrite
memory, so such formats are not read with it; `htimestamp()` ignores errors and then returns rubbish (`SampleClock`
checks).
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import alsaaudio

from msrecd.clock import NS
from msrecd.devices.alsa.cards import STANDARD_RATES, AlsaCards, Capabilities, CaptureDevice, preferred
from msrecd.devices.alsa.source import AlsaSource, PcmGone
from msrecd.devices.base import DeviceDescription, stable_id
from msrecd.dom.exceptions import AbortError, DOMException, NotAllowedError, NotFoundError, NotReadableError
from msrecd.flow.units import AudioFormat

log = logging.getLogger(__name__)

_GONE = {errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.EBADFD}
_HAS_SAFE_READ = hasattr(alsaaudio.PCM, "avail")  # 0.11: the read buffer has the size of the container, not of its bits


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoding:
    """A sample format of ALSA: how many bits count, how many it takes, and what `AudioFormat` it becomes."""

    name: str
    number: int
    bits: int
    stored_bits: int
    becomes: Literal["s16", "s32"]


_ENCODINGS = (
    _Encoding(name="S16_LE", number=alsaaudio.PCM_FORMAT_S16_LE, bits=16, stored_bits=16, becomes="s16"),
    _Encoding(name="S32_LE", number=alsaaudio.PCM_FORMAT_S32_LE, bits=32, stored_bits=32, becomes="s32"),
    _Encoding(name="S24_3LE", number=alsaaudio.PCM_FORMAT_S24_3LE, bits=24, stored_bits=24, becomes="s32"),
    _Encoding(name="S24_LE", number=alsaaudio.PCM_FORMAT_S24_LE, bits=24, stored_bits=32, becomes="s32"),
)


class AlsaPcm:
    """A non-blocking capture PCM of alsa-lib as `AlsaSource` wants it; see CapturePcm. One thread at a time."""

    def __init__(
        self, address: str, *, encoding: _Encoding, sample_rate: int, channels: int, mixes: bool = False
    ) -> None:
        """
        Args:
            mixes: deliver the mean of the channels.

        Raises:
            alsaaudio.ALSAAudioError: it cannot be opened.
            _Unfit: it is open only with other parameters, or not safely.
        """
        period = period_samples(sample_rate)
        self._pcm = alsaaudio.PCM(
            type=alsaaudio.PCM_CAPTURE,
            mode=alsaaudio.PCM_NONBLOCK,
            device=address,
            rate=sample_rate,
            channels=channels,
            format=encoding.number,
            periodsize=period,
            periods=periods(sample_rate, period),
        )
        try:
            info = self._pcm.info()
            _check_fit(info, encoding=encoding, sample_rate=sample_rate, channels=channels)
        except BaseException:
            self._pcm.close()
            raise
        self._address = address
        self._encoding = encoding
        self._is_mixed = mixes
        significant = min(encoding.bits, int(info["significant_bits"]) or encoding.bits)
        bits = significant if significant not in (16, 32) else 0
        heard = 1 if mixes else channels
        self.format = AudioFormat(sample_rate=sample_rate, channels=heard, sample_format=encoding.becomes, bits=bits)
        self.period_samples = int(info["period_size"])
        self.buffer_samples = int(info["buffer_size"])
        self._use_monotonic_timestamps()

    @property
    def buffer_ns(self) -> int:
        return self.buffer_samples * NS // self.format.sample_rate

    def is_overrun(self) -> bool:
        return self._pcm.state() == alsaaudio.PCM_STATE_XRUN

    def read(self) -> tuple[int, bytes]:
        try:
            samples, data = self._pcm.read()
        except alsaaudio.ALSAAudioError as exc:
            if error_number(exc) in _GONE:
                raise PcmGone(str(exc)) from exc
            raise NotReadableError(f"reading {self._address} failed: {exc}") from exc
        if samples > 0 and self._encoding.bits == 24:
            data = widen_24(data, packed=self._encoding.stored_bits == 24)
        if samples > 0 and self._is_mixed:
            data = mean_of_two(data, self.format.sample_format)
        return samples, data

    def timestamp(self) -> tuple[int, int]:
        seconds, nanoseconds, avail = self._pcm.htimestamp()
        return seconds * NS + nanoseconds, avail

    def close(self) -> None:
        try:
            self._pcm.close()
        except alsaaudio.ALSAAudioError as exc:
            log.warning("closing %s failed: %s", self._address, exc)

    def _use_monotonic_timestamps(self) -> None:
        try:
            self._pcm.set_tstamp_mode(alsaaudio.PCM_TSTAMP_ENABLE)
            self._pcm.set_tstamp_type(alsaaudio.PCM_TSTAMP_TYPE_MONOTONIC)
        except (alsaaudio.ALSAAudioError, RuntimeError) as exc:  # SampleClock then takes the time of reading
            log.info("%s has no monotonic timestamps: %s", self._address, exc)


def mean_of_two(data: bytes, sample_format: Literal["s16", "s32"]) -> bytes:
    """Two channels as one: the mean of each pair of samples, which never clips."""
    samples = array("h" if sample_format == "s16" else "i", data)
    mixed = array(
        samples.typecode, [(left + right) >> 1 for left, right in zip(samples[::2], samples[1::2], strict=True)]
    )
    return mixed.tobytes()


class _Unfit(Exception):
    """The PCM is there, but not with these parameters."""


def _check_fit(info: Mapping[str, Any], *, encoding: _Encoding, sample_rate: int, channels: int) -> None:
    got = (info["rate"], info["channels"], info["format_name"])
    if got != (sample_rate, channels, encoding.name):
        raise _Unfit(f"asked for {sample_rate} Hz x {channels} {encoding.name}, got {got[0]} Hz x {got[1]} {got[2]}")
    if not _HAS_SAFE_READ and int(info["significant_bits"]) < encoding.stored_bits:
        raise _Unfit(f"pyalsaaudio before 0.11 cannot read {encoding.name} with {info['significant_bits']} bits")


def error_number(exc: Exception) -> int:
    """The errno in pyalsaaudio's exception, which has only its text ("No such device [hw:1]"); 0 when it is none."""
    text = str(exc).rpartition(" [")[0] or str(exc)
    return _ERRNO_OF.get(text, 0)


_ERRNO_OF = {os.strerror(number): number for number in errno.errorcode}


class AlsaBackend:
    """All capture devices of real sound cards, and PCMs that the configuration names. See devices.base.Backend."""

    name = "alsa"

    def __init__(self, *, extra_pcms: Sequence[str] = (), cards: AlsaCards | None = None) -> None:
        """
        Args:
            extra_pcms: PCMs of alsa-lib's configuration ("mic_array", "dsnoop:1") that are devices too, put first.
            cards: where the cards are looked up.
        """
        self._extra_pcms = tuple(extra_pcms)
        self._cards = cards or AlsaCards()
        self._lock = threading.Lock()
        self._probed: dict[str, Capabilities] = {}  # by address and id: what was seen while the device was free
        self._sources: dict[str, AlsaSource] = {}  # the last one opened, by address
        self._complained: dict[str, str] = {}
        self._close_watch: Callable[[], None] | None = None

    def describe(self) -> list[DeviceDescription]:
        devices: list[DeviceDescription] = []
        for pcm in self._extra_pcms:
            self._try(devices, pcm, lambda pcm=pcm: self._describe_pcm(pcm))  # type: ignore[misc]
        for card in self._cards.capture_devices():
            self._try(devices, card.address, lambda card=card: self._describe_card(card))  # type: ignore[misc]
        return devices

    def open(self, device: DeviceDescription, settings: Mapping[str, Any]) -> AlsaSource:
        address, key = self._address_now(device)
        try:
            # A device that was busy when it was described was described by guess: look again now.
            capabilities = self._known(key) or self._probe(address, key)
            pcm = _open_pcm(address, _Wanted.of(settings, capabilities))
        except alsaaudio.ALSAAudioError as exc:
            raise self._translate(exc, device, address) from exc
        except _Unfit as exc:
            raise NotReadableError(f"{device.label} cannot be opened: {exc}") from exc
        if pcm.buffer_ns < 400_000_000:
            log.info("%s: the driver's buffer is only %d ms", device.label, pcm.buffer_ns // 1_000_000)
        log.info("microphone %s opened as %s: %s", device.label, address, describe_format(pcm.format))
        source = AlsaSource(pcm, label=device.label, device_id=device.device_id, group_id=device.group_id)
        with self._lock:
            self._sources[address] = source
        return source

    def watch(self, changed: Callable[[], None]) -> None:
        from msrecd.devices.hotplug import HotplugWatcher  # udev's library is loaded only where somebody watches

        watcher = HotplugWatcher(subsystems=("sound",), changed=changed)
        watcher.start()
        self._close_watch = watcher.close

    def close(self) -> None:
        close, self._close_watch = self._close_watch, None
        if close is not None:
            close()

    def _try(
        self, devices: list[DeviceDescription], address: str, describe: Callable[[], DeviceDescription | None]
    ) -> None:
        """Add a description; a device that has none is left out, and said so once per reason."""
        try:
            found = describe()
        except (alsaaudio.ALSAAudioError, _Unfit, OSError, ValueError) as exc:
            if self._complained.get(address) != str(exc):
                log.warning("microphone %s left out: %s", address, exc)
                self._complained[address] = str(exc)
            return
        self._complained.pop(address, None)
        if found is not None:
            devices.append(found)

    def _describe_card(self, card: CaptureDevice) -> DeviceDescription | None:
        busy = card.free_subdevices == 0
        holder = self._cards.holder(card.card, card.device) if busy else None
        capabilities = self._capabilities(card, busy=busy)
        detail: dict[str, Any] = {"card": card.card_id, "driver": card.driver}
        if card.usb is not None:
            detail |= {"usb": card.usb.place, "product": card.usb.product}
        if holder is not None:
            detail["holder"] = str(holder)
        return DeviceDescription(
            kind="audio",
            device_id=card.device_id,
            group_id=card.group_id,
            label=card.label,
            driver=self.name,
            address=card.address,
            sample_rates=capabilities.sample_rates,
            channel_counts=capabilities.channel_counts,
            sample_sizes=capabilities.sample_sizes,
            latency_s=(0.02, 0.6),
            state="busy" if busy else "free",
            detail=detail,
        )

    def _describe_pcm(self, pcm: str) -> DeviceDescription | None:
        device_id = stable_id("alsa", "pcm", pcm)
        busy = self._is_open(pcm)
        capabilities = self._known(pcm) if busy else None
        if capabilities is None:
            try:
                capabilities = self._probe(pcm, pcm)
            except alsaaudio.ALSAAudioError as exc:
                if error_number(exc) != errno.EBUSY:
                    self._forget(pcm)
                    raise
                busy = True
                capabilities = self._known(pcm) or preferred({48000}, {2}, {16})
        return DeviceDescription(
            kind="audio",
            device_id=device_id,
            group_id=stable_id("group", "alsa", pcm),
            label=pcm,
            driver=self.name,
            address=pcm,
            sample_rates=capabilities.sample_rates,
            channel_counts=capabilities.channel_counts,
            sample_sizes=capabilities.sample_sizes,
            latency_s=(0.02, 0.6),
            state="busy" if busy else "free",
        )

    def _capabilities(self, card: CaptureDevice, *, busy: bool) -> Capabilities:
        """Probe once, and only while nobody has it open; a busy card is described by what is known otherwise."""
        key = _key(card)
        known = self._known(key)
        if known is None and not busy:
            try:
                known = self._probe(card.address, key)
            except alsaaudio.ALSAAudioError as exc:
                if error_number(exc) not in {errno.EBUSY, errno.EACCES, errno.EPERM}:
                    raise
        return known or self._cards.usb_capabilities(card.card, card.device) or preferred({48000}, {2}, {16})

    def _probe(self, address: str, key: str) -> Capabilities:
        pcm = alsaaudio.PCM(type=alsaaudio.PCM_CAPTURE, mode=alsaaudio.PCM_NONBLOCK, device=address, periodsize=1024)
        try:
            channels = set(pcm.getchannels())
            if 2 in channels:
                channels.add(1)  # mixed here where the card itself has no such mode: most I2S microphones
            capabilities = preferred(_rates(pcm.getrates()), channels, {known.bits for known in _known_encodings(pcm)})
        finally:
            pcm.close()
        with self._lock:
            self._probed[key] = capabilities
        return capabilities

    def _known(self, key: str) -> Capabilities | None:
        with self._lock:
            return self._probed.get(key)

    def _is_open(self, address: str) -> bool:
        """Whether this process reads the device: then it is not opened a second time just to look."""
        with self._lock:
            source = self._sources.get(address)
            return source is not None and source.is_running

    def _forget(self, key: str) -> None:
        with self._lock:
            self._probed.pop(key, None)

    def _address_now(self, device: DeviceDescription) -> tuple[str, str]:
        """Address and key of what is known about it; the card may have come back under another id since."""
        if device.address in self._extra_pcms:
            return device.address, device.address
        for card in self._cards.capture_devices():
            if card.device_id == device.device_id:
                return card.address, _key(card)
        raise NotFoundError(f"{device.label} is not there any more")

    def _translate(self, exc: Exception, device: DeviceDescription, address: str) -> DOMException:
        number = error_number(exc)
        if number == errno.EBUSY:
            return NotReadableError(f"{device.label} is busy: {self._who_holds(address)}")
        if number == errno.EPERM:  # not the mode of the file, but the device list of the service
            return NotAllowedError(
                f"{device.label}: the service may not use the sound device: see DeviceAllow= in `systemctl cat msrecd`,"
                " restart it"
            )
        if number == errno.EACCES:
            return NotAllowedError(f"{device.label}: no access to the sound device; add the user to the group audio")
        if number in _GONE:
            return NotFoundError(f"{device.label} is not there any more")
        if number in {errno.EIO, errno.ETIMEDOUT, errno.EPROTO, errno.EPIPE, errno.ENOMEM, errno.EINVAL}:
            return NotReadableError(f"{device.label} cannot be opened: {exc}")
        return AbortError(f"{device.label} cannot be opened: {exc}")

    def _who_holds(self, address: str) -> str:
        for card in self._cards.capture_devices():
            if card.address == address:
                holder = self._cards.holder(card.card, card.device)
                if holder is not None:
                    return f"{holder} has it open"
        return "another program has it open"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What to open a device with: values of its own that come nearest to the settings."""

    sample_rate: int
    channels: int
    sample_size: int

    @classmethod
    def of(cls, settings: Mapping[str, Any], offered: Capabilities) -> _Wanted:
        return cls(
            sample_rate=nearest_not_smaller(_whole(settings.get("sample_rate")), offered.sample_rates),
            channels=nearest_not_smaller(_whole(settings.get("channel_count")), offered.channel_counts),
            sample_size=nearest_not_smaller(_whole(settings.get("sample_size")), offered.sample_sizes),
        )


def _key(card: CaptureDevice) -> str:
    return f"{card.address} {card.key}"


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _open_pcm(address: str, wanted: _Wanted) -> AlsaPcm:
    """Open with the wanted sample size, else another one, else through alsa-lib's conversion of sample formats."""
    order = sorted(_ENCODINGS, key=lambda known: _how_far(known, wanted.sample_size))
    reason: _Unfit | None = None
    for channels in (1, 2) if wanted.channels == 1 else (wanted.channels,):
        for encoding in order:
            try:
                return AlsaPcm(
                    address,
                    encoding=encoding,
                    sample_rate=wanted.sample_rate,
                    channels=channels,
                    mixes=channels != wanted.channels,
                )
            except _Unfit as exc:
                reason = reason or exc
    if reason is not None:
        log.info("%s: %s; trying alsa-lib's conversion", address, reason)
    converted = f"plug:SLAVE='{address}'"
    for encoding in order:
        try:
            return AlsaPcm(converted, encoding=encoding, sample_rate=wanted.sample_rate, channels=wanted.channels)
        except (_Unfit, alsaaudio.ALSAAudioError) as exc:
            log.debug("%s: %s", converted, exc)
    raise reason or _Unfit("no known sample format")


def _how_far(encoding: _Encoding, sample_size: int) -> tuple[bool, int, int]:
    """Smallest for what comes nearest: not smaller than wanted, else as large as there is; packed before padded."""
    is_smaller = encoding.bits < sample_size
    return (is_smaller, -encoding.bits if is_smaller else encoding.bits, encoding.stored_bits)


def _known_encodings(pcm: alsaaudio.PCM) -> list[_Encoding]:
    """Those of the device's formats that can be read here.

    Raises:
        _Unfit: there is none.
    """
    names = pcm.getformats()
    known = [encoding for encoding in _ENCODINGS if encoding.name in names]
    if not known:
        raise _Unfit(f"no known sample format among {', '.join(names) or 'none'}")
    return known


def _rates(rates: int | tuple[int, int] | list[int]) -> set[int]:
    """pyalsaaudio's `getrates()`: one rate, a range, or the standard ones that work."""
    if isinstance(rates, int):
        return {rates}
    if isinstance(rates, tuple):
        lowest, highest = rates
        return {rate for rate in STANDARD_RATES if lowest <= rate <= highest} | {highest}
    if not rates:
        raise _Unfit("no known sample rate")
    return set(rates)


def widen_24(data: bytes, *, packed: bool) -> bytes:
    """S24 samples as S32, exactly (the lowest eight bits are zero); `packed`: three bytes a sample instead of four."""
    step = 3 if packed else 4
    wide = bytearray(len(data) // step * 4)
    for byte in range(3):
        wide[byte + 1 :: 4] = data[byte::step]
    return bytes(wide)


def period_samples(sample_rate: int) -> int:
    """The period to ask for: the power of two that lasts 20 to 40 ms."""
    return 1 << (max(1, sample_rate // 50) - 1).bit_length()


def periods(sample_rate: int, period: int, buffer_s: float = 0.6) -> int:
    """How many of them make the buffer: `buffer_s` seconds, so that a stalled interpreter does not cost samples."""
    return max(4, -(-round(sample_rate * buffer_s) // period))


def nearest_not_smaller(wanted: int | None, offered: tuple[int, ...]) -> int:
    """Of what the hardware offers (default first) the smallest that is at least `wanted`, else the largest."""
    if wanted is None:
        return offered[0]
    return min((value for value in offered if value >= wanted), default=max(offered))


def describe_format(format: AudioFormat) -> str:
    """For people: "48000 Hz, 2 channels, s16"."""
    plural = "" if format.channels == 1 else "s"
    return f"{format.sample_rate} Hz, {format.channels} channel{plural}, {format.sample_format}"
