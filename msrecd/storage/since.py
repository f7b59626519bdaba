"""What was recorded after a given chunk, from the manifests: for those who must be told of every chunk once."""

from __future__ import annotations

import logging
import re

from msrecd.storage import files, layout, manifest, tree
from msrecd.storage.manifest_lines import ManifestLine
from msrecd.storage.root import StorageRoot

log = logging.getLogger(__name__)

LIMIT = 10_000
MAX_BYTES = 1 << 30
_SEQ = re.compile(rb'\{"seq":(\d{1,9}),')


def is_of_boot(recording_id: str) -> bool:
    """Whether an id was drawn while the clock was not trusted. Ids sort in the order of recording within one form."""
    return recording_id.startswith("boot")


def lines_since(
    storage: StorageRoot, recorder: str, recording_id: str, seq: int, *, limit: int = LIMIT
) -> list[ManifestLine]:
    """The lines of a recorder's chunks behind chunk `seq` of a recording (0: its first and all behind), oldest first.

    Only recordings whose ids have the same form. The newest folders are read, back to that of the given recording;
    when there are more than `limit`, the newest are returned. Blocking.

    Raises:
        StorageError: the storage cannot be read.
    """
    lines: list[ManifestLine] = []
    with files.storage_errors(f"read {storage.path}"), files.closing_fd(storage.open_root()) as root:
        try:
            folders = [f"{recorder}/{day}" for day in tree.days(root, recorder)]
        except FileNotFoundError:
            return []
        for folder in reversed(folders):
            if is_of_boot(folder.removeprefix(f"{recorder}/")) != is_of_boot(recording_id):
                continue
            names = reversed(tree.names_in(root, folder))
            ids = [found for name in names if (found := layout.parse_manifest_name(name)) is not None]
            for found in ids:
                if found < recording_id:
                    break
                try:
                    with files.closing_fd(files.open_folder(root, folder)) as opened:
                        content = files.read_at(opened, layout.manifest_name(found), MAX_BYTES)
                except OSError as exc:
                    log.warning("skipping the manifest of %s: %s", found, exc.strerror or exc)
                    continue
                new = manifest.live_chunks(manifest.read(behind(content, seq if found == recording_id else 0)))
                lines += sorted(new, key=lambda line: -line["seq"])
            if len(lines) >= limit or (ids and ids[-1] <= recording_id):
                break
    return lines[:limit][::-1]


def behind(content: bytes, seq: int) -> bytes:
    """What stands in a manifest behind its last line of a chunk up to `seq`: a long recording is not read whole."""
    lines = content.split(b"\n")
    for at in reversed(range(len(lines))):
        found = _SEQ.match(lines[at])
        if found is not None and int(found[1]) <= seq:
            return b"\n".join(lines[at + 1 :])
    return content
