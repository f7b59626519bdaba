"""The manual page msrecd.toml(5), made from the model: `python -m msrecd.config.manpage > docs/man/msrecd.toml.5`."""

from __future__ import annotations

import re
import sys

from msrecd import __version__
from msrecd.config.manual import TABLES, default_of
from msrecd.config.tables import keys_of

_DATE = "2026-11-21"
# The heading of each table; tables that stand in lists are written with two brackets.
_HEADINGS = {
    "recorder.audio_filters": "Entries of recorder.audio_filters",
    "top": "Top level",
    "devices.virtual": "[[devices.virtual]]",
    "camera": "[[camera]]",
    "recorder": "[[recorder]]",
    "recorder.snapshots": "[recorder.snapshots]",
    "recorder.overlay": "[recorder.overlay]",
    "recorder.time_lapse": "[recorder.time_lapse]",
    "recorder.source": "[recorder.source]",
    "recorder.retention": "[recorder.retention]",
    "recorder.schedule": "[[recorder.schedule]]",
    "recorder.trigger": "[[recorder.trigger]]",
}
_HEAD = r""".\" Made by msrecd.config.manpage; change the model or that module instead.
.TH MSRECD.TOML 5 "{date}" "msrecd {version}" "File formats"
.SH NAME
msrecd.toml \- configuration of the media recorder daemon msrecd
.SH SYNOPSIS
.I /etc/msrecd/msrecd.toml
.br
.I /etc/msrecd/conf.d/*.toml
.SH DESCRIPTION
A file in TOML 1.0. The files of
.I conf.d
beside it are read after it, in the order of their names.
Tables are merged, and a key in a later file replaces that of an earlier one.
.\" promise: conf-d-is-merged
Cameras and recorders are added; two recorders with one name are an error.
.\" promise: recorders-of-conf-d-are-added
A file of
.I conf.d
that every user may write to is refused.
.\" promise: open-fragment-is-refused
An unknown key, a wrong type or a value out of range is an error, and
.B msrecd check\-config
names all of them.
.\" promise: every-problem-is-named
A running daemon reads the files again on
.BR "systemctl reload msrecd" ;
if anything is wrong it goes on with what it has.
.\" promise: reload-keeps-what-it-has
.PP
Durations are texts like
.BR \(dq10m\(dq ,
.B \(dq1h30m\(dq
or
.BR \(dq500ms\(dq ,
sizes texts like
.B \(dq2GiB\(dq
or
.BR \(dq20GB\(dq .
.\" promise: durations-and-sizes
"""
_TAIL = r""".SH EXAMPLE
.nf
config_version = 1

[mqtt]
host = "localhost"

[storage]
path = "/var/lib/msrecd/recordings"
max_total = "20GiB"

[location]
latitude = 52.52
longitude = 13.40

[[recorder]]
name = "cam0"
video = {{ width = {{ ideal = 1920 }}, frame_rate = 30 }}
audio = true
chunk_duration = "60s"

[[recorder.schedule]]
start = "sunrise\-30m"
stop = "sunset+30m"
.fi
.SH SEE ALSO
.BR msrecd (1),
.I /usr/share/doc/msrecd/configuration.md
"""


def page() -> str:
    """The whole page, in roff."""
    parts = [_HEAD.format(date=_DATE, version=__version__)]
    for name, table in TABLES.items():
        parts.append(f'.SH "{roff(_HEADINGS.get(name, f"[{name}]"))}"\n')
        for key, value in keys_of(table).items():
            default = default_of(value)
            note = "Required." if value.required else f"Default: {default}."
            parts.append(f".TP\n.B {roff(key)}\n{roff(value.doc)}\n{roff(f'Takes {value.kind.describe()}. {note}')}\n")
    parts.append(_TAIL.format())
    return "".join(parts)


def roff(text: str) -> str:
    """Plain text with `code` as roff; begins no request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq").replace("~", r"\(ti")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fP", text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    sys.stdout.write(page())
