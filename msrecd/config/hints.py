"""What was meant where something else was written: words of other programs, slips of TOML. Pure.

A technician reads these lines at the foot of a mast, without the manual: each says what to write instead.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from msrecd.config.problems import suggestion

_SAME = {
    "bitrate": "video_bits_per_second",
    "video_bitrate": "video_bits_per_second",
    "video_bps": "video_bits_per_second",
    "audio_bitrate": "audio_bits_per_second",
    "audio_bps": "audio_bits_per_second",
    "fps": "frame_rate",
    "framerate": "frame_rate",
    "rate": "sample_rate",
    "samplerate": "sample_rate",
    "channels": "channel_count",
    "device": "device_id",
    "camera": "device_id",
    "microphone": "device_id",
    "format": "mime_type",
    "container": "mime_type",
    "segment_duration": "chunk_duration",
    "segment_time": "chunk_duration",
    "max_size": "chunk_max_size",
    "server": "host",
    "broker": "host",
    "hostname": "host",
    "user": "username",
    "passwd": "password_file",
    "cafile": "ca_file",
    "certfile": "cert_file",
    "keyfile": "key_file",
    "lat": "latitude",
    "lon": "longitude",
    "lng": "longitude",
    "long": "longitude",
    "tz": "timezone",
    "zone": "timezone",
    "begin": "start",
    "from": "start",
    "end": "stop",
    "until": "stop",
    "to": "stop",
    "weekdays": "days",
    "folder": "path",
    "directory": "path",
    "quota": "max_total",
    "keep": "max_age",
}
_TLS = "TLS is on unless host is this machine; ca_file names your own authority, allow_plaintext = true switches it off"
_SIZE = "write width = 1920, height = 1080"
_INSTEAD = {  # word: a key of the table in which this holds, what to do
    "tls": ("allow_plaintext", _TLS),
    "ssl": ("allow_plaintext", _TLS),
    "password": (
        "password_file",
        "a password does not stand here: put it into a file and name that with password_file",
    ),
    "resolution": ("width", _SIZE),
    "size": ("width", _SIZE),
}
_LINE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_SECRET = re.compile(r"//[^/@\s]*@")
_VALUE = re.compile(r"^\s*[A-Za-z0-9_.\"'-]+\s*=\s*(?P<value>.*)$")
_FEW = 6
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def unknown_key(name: str, known: Sequence[str], elsewhere: Mapping[str, Iterable[str]]) -> str:
    """A clause about a key that a table does not have; `elsewhere` has the keys of all tables by their headings."""
    same = _SAME.get(name.lower().replace("-", "_"), "")
    if same in known:
        return f'; here it is called "{same}"'
    where, instead = _INSTEAD.get(name.lower(), ("", ""))
    if where in known:
        return f"; {instead}"
    near = suggestion(name, known)
    if "did you mean" in near or len(known) <= _FEW:
        return near
    for heading in elsewhere:
        path = heading.strip("[]")
        if path.endswith(f".{name}"):
            owner = next(other for other in elsewhere if other.strip("[]") == path.rpartition(".")[0])
            return f"; its heading is {heading}, below the {owner} that it is for"
    owners = [heading for heading, keys in elsewhere.items() if name in keys or same in keys]
    return f"; {same or name} belongs below {' or '.join(owners)}" if owners else near


def quoted_number(value: object) -> str:
    """A clause for who wrote "1883" where 1883 is meant."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9_]+(\.[0-9]+)?", value.strip()):
        return f"; write {value.strip()}, without the quotes"
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+,[0-9]+", value.strip()):
        return f"; write {value.strip().replace(',', '.')}, without the quotes and with a point"
    return ""


def syntax(exc: tomllib.TOMLDecodeError, text: str) -> str:
    """Why a text is no TOML: the line, what is wrong there and what to write. Passwords in URLs are left out."""
    reason = str(exc)
    where = _LINE.search(reason)
    reason = _LINE.sub("", reason)
    reason = reason[:1].lower() + reason[1:]
    if where is None or where["line"] is None:
        return f"is not valid TOML: {reason} at its end"
    lines = text.splitlines()
    number = int(where["line"])
    raw = lines[number - 1] if number <= len(lines) else ""
    line = raw.strip()
    shown = _SECRET.sub("//...@", line if len(line) <= 80 else line[:77] + "...")
    column = int(where["column"])
    why = _invisible(raw[column - 1 : column], column) or _hint(reason, line) or f"{reason}, column {column}"
    return f"line {number} is not valid TOML: {shown}  <- {why}"


def _invisible(char: str, column: int) -> str:
    """What a character is that nobody sees, as copied from a page on the web; nothing for others."""
    if not char or char == " " or unicodedata.category(char) not in ("Zs", "Cf"):
        return ""
    name = unicodedata.name(char, "").lower()
    return f"column {column} has an invisible character (U+{ord(char):04X}, {name}); type the line anew"


def _hint(reason: str, line: str) -> str:
    if re.search("[\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb]", line):
        return 'quotes are plain ones here: "..."'
    if reason.startswith("cannot declare"):
        return "this heading stands further up already; put the keys of both together there"
    if reason.startswith("cannot overwrite"):
        if line.startswith("[["):
            name = line.strip("[] ")
            return f"{line} must stand above all [{name}. ...] and [[{name}. ...]], and always with two brackets"
        return "this key stands in the same table already; keep one of the two"
    if line.startswith("[") and reason.startswith("expected ']"):
        return "the brackets do not match: one key table is [name], one of several is [[name]]"
    match = _VALUE.match(line)
    if match is None:
        return "write key = value" if ":" in line or "=" not in line else ""
    value = match["value"].split("#")[0].strip()
    if value.lower() in _WORDS or value in ("True", "False"):
        return f"write {_WORDS.get(value.lower(), value.lower())}"
    if "\\" in value and ("escape" in reason or "hex" in reason):
        return r"in \"...\" a backslash begins an escape; write \\ or /".replace(r"\"", '"')
    if value.startswith(('"', "'")) and value.count(value[0]) % 2:
        return f"a closing {value[0]} is missing"
    if value.startswith("{") and "}" not in value:
        return "what stands in { } must stand in one line"
    if re.match(r"\d{1,2}:\d{2}$", value) or re.match(r"[0-9.]+\s*[A-Za-z%]+$", value) or re.match(r"[A-Za-z/]", value):
        return f'text stands in quotes: "{value}"'
    if re.match(r"[+-]?\d+,\d+$", value):
        return f"write {value.replace(',', '.')}, with a point"
    return "a value is missing" if not value else ""
