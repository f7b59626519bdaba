"""Names and folders of recordings, chunks and manifests: pure, both ways.

    <recorder>/<YYYY>/<MM>/<DD>/<recording_id>-<seq>.mp4     while the clock is trusted
    <recorder>/boot<NNNN>/<recording_id>-<seq>.mp4           while it is not

Names of one form sort in the order of recording (up to 9999 chunks of a recording; larger numbers get more digits).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from msrecd.clock import MS, NS
from msrecd.clock.wall import Stamp
from msrecd.vocabulary.formats import SUFFIXES
from msrecd.vocabulary.names import RECORDING_ID, RECORDING_ID_PATTERN, is_name

PART = ".part"
MANIFEST = ".jsonl"
EXTENSIONS = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)

_CHUNK = re.compile(
    rf"(?P<id>{RECORDING_ID})-(?P<seq>\d{{4,9}})\.(?P<extension>{'|'.join(EXTENSIONS)})(?P<part>\.part)?\Z", re.ASCII
)
_SNAPSHOT = re.compile(
    rf"(?P<id>{RECORDING_ID})-(?P<seq>\d{{4,9}})\.(?P<extension>jpg|dng)(?P<part>\.part)?\Z", re.ASCII
)
_MANIFEST_PIECE = re.compile(r"(?P<name>.+\.jsonl)\.(?P<number>\d{6,9})\Z", re.ASCII)
_BOOT_FOLDER = re.compile(r"[^/]+/boot(\d{4,})/", re.ASCII)
_DAY = re.compile(r"(\d{4}/\d{2}/\d{2}|boot\d{4,})\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingId:
    """What a recording id says: `utc_s` when its clock was trusted, else `boot` and `monotonic_ms`."""

    text: str
    recorder: str
    suffix: str
    utc_s: int | None = None
    boot: int | None = None
    monotonic_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkName:
    """What the name of a chunk file says."""

    recording_id: str
    recorder: str
    seq: int
    extension: str
    is_part: bool

    @property
    def final(self) -> str:
        """The name it has when it is finished."""
        return chunk_name(self.recording_id, self.seq, self.extension)


def make_recording_id(recorder: str, stamp: Stamp, suffix: int) -> str:
    """The id of a recording that begins at `stamp`; `suffix` is a number below 65536.

    Raises:
        ValueError: no name of a recorder.
    """
    if not is_name(recorder):
        raise ValueError(f"recorder: {recorder!r} is no name; use a-z, 0-9 and - inside")
    if not 0 <= suffix < 0x10000:
        raise ValueError("suffix: out of range")
    if stamp.trusted:
        time = datetime.fromtimestamp(stamp.utc_ns // NS, UTC).strftime("%Y%m%dT%H%M%SZ")
    else:
        time = f"boot{stamp.boot:04d}-{stamp.monotonic_ns // MS:012d}"
    return f"{time}-{recorder}-{suffix:04x}"


@lru_cache(maxsize=256)
def parse_recording_id(text: str) -> RecordingId | None:
    """The parts of a recording id, None when it is none."""
    match = RECORDING_ID_PATTERN.match(text)
    if match is None or not is_name(match["recorder"]):
        return None
    if match["time"] is None:
        return RecordingId(
            text=text,
            recorder=match["recorder"],
            suffix=match["suffix"],
            boot=int(match["boot"]),
            monotonic_ms=int(match["ms"]),
        )
    try:
        moment = datetime.fromisoformat(match["time"])
    except ValueError:
        return None
    return RecordingId(text=text, recorder=match["recorder"], suffix=match["suffix"], utc_s=int(moment.timestamp()))


def chunk_name(recording_id: str, seq: int, extension: str) -> str:
    """The final name of a chunk; the open one has `.part` behind it."""
    return f"{recording_id}-{seq:04d}.{extension}"


def manifest_name(recording_id: str) -> str:
    return recording_id + MANIFEST


@lru_cache(maxsize=4)  # the gate for a path parses the name that its caller looks at next
def parse_chunk_name(name: str) -> ChunkName | None:
    """What a file name says, None when it is no chunk of ours."""
    match = _CHUNK.match(name)
    if match is None or parse_recording_id(match["id"]) is None or int(match["seq"]) < 1:
        return None
    parsed = ChunkName(
        recording_id=match["id"],
        recorder=match["recorder"],
        seq=int(match["seq"]),
        extension=match["extension"],
        is_part=match["part"] is not None,
    )
    return parsed if name == parsed.final + (PART if parsed.is_part else "") else None


def parse_manifest_name(name: str) -> str | None:
    """The recording id of a manifest's name, None when it is none."""
    recording_id = name.removesuffix(MANIFEST)
    return recording_id if name.endswith(MANIFEST) and parse_recording_id(recording_id) is not None else None


def snapshot_name(recording_id: str, number: int, extension: str = "jpg") -> str:
    """The final name of a snapshot, of a JPEG or a DNG; both are counted together, and apart from chunks."""
    return f"{recording_id}-{number:04d}.{extension}"


def parse_snapshot_name(name: str) -> tuple[str, int] | None:
    """Recording id and number of a snapshot's final name; None when it is none of ours."""
    match = _SNAPSHOT.match(name)
    if match is None or match["part"] or parse_recording_id(match["id"]) is None or int(match["seq"]) < 1:
        return None
    known = match["id"], int(match["seq"])
    return known if name == snapshot_name(*known, match["extension"]) else None


def manifest_piece(manifest: str, number: int) -> str:
    """Under which name a store keeps one line of a manifest, by the line's number."""
    return f"{manifest}.{number:06d}"


def parse_manifest_piece(name: str) -> tuple[str, int] | None:
    """Manifest and number of such a name; None when it is none."""
    match = _MANIFEST_PIECE.match(name)
    if match is None or parse_manifest_name(match["name"]) is None:
        return None
    return match["name"], int(match["number"])


def is_ours(name: str) -> bool:
    """Whether a file name is that of a finished chunk, a snapshot, or one line of a manifest in a store."""
    chunk = parse_chunk_name(name)
    is_chunk = chunk is not None and not chunk.is_part
    return is_chunk or parse_snapshot_name(name) is not None or parse_manifest_piece(name) is not None


def day_folder(stamp: Stamp) -> str:
    """The folder, below the recorder's, of a chunk that begins at `stamp`."""
    if not stamp.trusted:
        return f"boot{stamp.boot:04d}"
    return datetime.fromtimestamp(stamp.utc_ns // NS, UTC).strftime("%Y/%m/%d")


def split_file(file: str) -> tuple[str, str, str] | None:
    """(recorder, day folder, name) of a path relative to the storage path; None when no file of ours can be there.

    This is the gate for names read from manifests, indexes and journals: nothing else may become a path.
    """
    place, _, name = file.rpartition("/")
    recorder, _, day = place.partition("/")
    if not _is_place(recorder, day):
        return None
    parsed = parse_chunk_name(name)
    if parsed is not None:
        return (recorder, day, name) if parsed.recorder == recorder else None
    snapshot = parse_snapshot_name(name)
    recording_id = snapshot[0] if snapshot is not None else parse_manifest_name(name)
    known = parse_recording_id(recording_id) if recording_id is not None else None
    return (recorder, day, name) if known is not None and known.recorder == recorder else None


@lru_cache(maxsize=16)
def _is_place(recorder: str, day: str) -> bool:
    return is_name(recorder) and _DAY.match(day) is not None


def boot_of(file: str) -> int | None:
    """The number of the boot in whose folder a chunk lies, its clock was not trusted then; None: that of a day."""
    match = _BOOT_FOLDER.match(file)
    return int(match[1]) if match is not None and len(match[1]) < 10 else None


def next_suffix(previous: str | None, prefix: str, draw: int) -> int | None:
    """A suffix such that `prefix` with it sorts behind `previous`; None when there is none left.

    Args:
        previous: the last id of the same recorder, None when it is the first.
        prefix: the new id without its suffix, with the dash.
        draw: a random number below 65536.
    """
    if previous is None or not previous.startswith(prefix):
        return draw & 0x7FFF  # room above for others in the same second
    lowest = int(previous[len(prefix) :], 16) + 1
    if lowest > 0xFFFF:
        return None
    return lowest + draw % min(0x100, 0x10000 - lowest)
