"""The tables of `docs/configuration.md`, from the model: `python -m msrecd.config.manual docs/configuration.md`.

The file's own text stays; what lies between `<!-- keys: NAME -->` and `<!-- end -->` is written anew.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from msrecd.config import model, offload_table, recorder_model, recorder_tables, trigger_keys
from msrecd.config.kinds import Duration, Size
from msrecd.config.tables import Key, Table, keys_of
from msrecd.vocabulary.units import format_duration, format_size

TABLES: dict[str, type] = {
    "top": model.Config,
    "device": model.Device,
    "devices": model.Devices,
    "devices.virtual": model.VirtualDevice,
    "mqtt": model.Mqtt,
    "web": model.Web,
    "storage": model.Storage,
    "offload": offload_table.Offload,
    "location": model.Location,
    "homeassistant": model.HomeAssistant,
    "camera": model.Camera,
    "recorder": recorder_model.Recorder,
    "recorder.audio_filters": recorder_tables.AudioFilter,
    "recorder.snapshots": recorder_tables.Snapshots,
    "recorder.overlay": recorder_tables.Overlay,
    "recorder.time_lapse": recorder_tables.TimeLapse,
    "recorder.source": recorder_model.Source,
    "recorder.retention": recorder_model.Retention,
    "recorder.schedule": recorder_model.Schedule,
    "recorder.trigger": trigger_keys.Trigger,
}
_BLOCK = re.compile(r"(<!-- keys: (?P<name>[a-z._]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refresh(text: str) -> str:
    """The manual with its tables as the model has them now."""
    return _BLOCK.sub(lambda match: f"{match[1]}{markdown(TABLES[match['name']])}{match[3]}", text)


def markdown(table: type) -> str:
    """The keys of a table as a Markdown table."""
    lines = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for name, key in keys_of(table).items():
        cells = (f"`{name}`", key.kind.describe(), default_of(key), key.doc)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def default_of(key: Key) -> str:
    """The default as one writes it in the file, or in words."""
    if key.required:
        return "**required**"
    if key.default_doc:
        return key.default_doc
    value = key.default
    if isinstance(key.kind, Table):
        return "an empty one"
    if isinstance(key.kind, Duration):
        return f'`"{format_duration(value)}"`'
    if isinstance(key.kind, Size):
        return f'`"{format_size(value)}"`'
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value)}`"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(refresh(path.read_text("utf-8")), "utf-8")
