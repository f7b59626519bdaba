"""What key frames of a live stream say of it: a stream whose frames change needs another header."""

from __future__ import annotations

from msrecd.codecs.jpeg import jpeg_size
from msrecd.inputs.processes import ReaderError
from msrecd.vocabulary.nal import PARAMETER_SETS, is_parameter_set, nal_units


class KeyFrameFacts:
    """Compares each key frame of a stream with those before."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._parameter_sets: tuple[bytes, ...] = ()
        self._jpeg_size: tuple[int, int] | None = None

    def check(self, key_frame: bytes | memoryview) -> None:
        """
        Raises:
            ReaderError: the stream is not the one that was described any more (another size, another profile): the
                recorder begins again, with a header that is right.
        """
        if self._codec == "mjpeg":
            size = jpeg_size(key_frame)
            if size and self._jpeg_size and size != self._jpeg_size:
                raise ReaderError("its frames changed (size or coding)")
            self._jpeg_size = size or self._jpeg_size
        elif self._codec in PARAMETER_SETS:
            self._check_parameter_sets(key_frame)

    def _check_parameter_sets(self, key_frame: bytes | memoryview) -> None:
        units = nal_units(bytes(key_frame[:2048]))[:-1]  # the last one may be cut
        found = [unit for unit in units if is_parameter_set(unit, self._codec) and not _is_pps(unit, self._codec)]
        sets = tuple(dict.fromkeys(found))  # a sender, or the network, may give one twice
        if sets and self._parameter_sets and sets != self._parameter_sets:
            raise ReaderError("its frames changed (size or coding)")
        self._parameter_sets = sets or self._parameter_sets


def _is_pps(unit: bytes, codec: str) -> bool:
    """A picture parameter set, which a sender may change at any time."""
    return unit[0] & 0x1F == 8 if codec == "h264" else unit[0] >> 1 & 0x3F == 34
