"""A second look at what `verify` found, for folders in which a daemon goes on recording and rotating."""

from __future__ import annotations

from pathlib import Path

from msrecd.storage import layout, manifest
from msrecd.storage.verify import Fault, Finding, is_unended


def still_holds(folder: Path, finding: Finding) -> bool:
    """Whether a finding is there still; chunks that were finished or rotated away meanwhile are no findings.

    Costs no more than reading one manifest.
    """
    if finding.fault not in (Fault.MISSING, Fault.UNLISTED, Fault.TORN, Fault.UNFINISHED, Fault.UNENDED):
        return True
    if "#" in finding.file:  # a number without a line, which no daemon writes later
        return (folder / finding.file.partition("#")[0]).exists()
    name = finding.file.rpartition("/")[2]
    if layout.parse_manifest_name(name) is not None:
        contents = _read(folder / finding.file)
        if contents is None:
            return False
        return is_unended(contents) if finding.fault is Fault.UNENDED else contents.torn
    parsed = layout.parse_chunk_name(name)
    if parsed is None or finding.fault is Fault.TORN:
        return True
    if finding.fault is Fault.UNFINISHED:
        return (folder / finding.file).exists()
    contents = next(
        (found for path in folder.rglob(layout.manifest_name(parsed.recording_id)) if (found := _read(path))), None
    )
    if contents is None:  # with its last chunk a manifest goes too
        return (folder / finding.file).exists() if finding.fault is Fault.UNLISTED else False
    listed = {line["seq"] for line in manifest.live_chunks(contents)}
    if finding.fault is Fault.MISSING:
        return parsed.seq in listed
    return parsed.seq not in listed and (folder / finding.file).exists()


def _read(path: Path) -> manifest.ManifestContents | None:
    try:
        return manifest.read(path.read_bytes())
    except OSError:
        return None
