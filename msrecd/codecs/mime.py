"""MIME types with a codecs parameter (https://mimesniff.spec.whatwg.org/#parsing-a-mime-type, RFC 6381)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


@dataclass(frozen=True, slots=True)
class MimeType:
    """A parsed type; essence in lower case, codecs as written, without quotes and blanks."""

    essence: str
    codecs: tuple[str, ...] = ()

    @property
    def top_level(self) -> str:
        return self.essence.partition("/")[0]


def parse(text: str) -> MimeType | None:
    """The parts of a MIME type, None when it is none."""
    essence, *parameters = _split(text)
    type_, slash, subtype = essence.strip().partition("/")
    subtype = subtype.rstrip()
    if not slash or not _TOKEN.match(type_) or not _TOKEN.match(subtype):
        return None
    codecs: tuple[str, ...] | None = None
    for parameter in parameters:
        name, equals, value = parameter.strip().partition("=")
        if not equals or not _TOKEN.match(name) or name.lower() != "codecs" or codecs is not None:
            continue  # unknown and malformed parameters are ignored; the first of a name counts
        value = value.strip().strip('"')
        codecs = tuple(part.strip() for part in value.split(",") if part.strip())
    return MimeType(f"{type_}/{subtype}".lower(), codecs or ())


def _split(text: str) -> list[str]:
    """Split at semicolons outside of quotes."""
    parts, quoted = [""], False
    for char in text:
        if char == '"':
            quoted = not quoted
        if char == ";" and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return parts
