"""Any byte of any line of a manifest that is another than was written: that line is named, and no chunk is blamed."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_verify_and_catalog import chunks, copy, faults

from msrecd.cli.main import main
from msrecd.storage import manifest
from msrecd.storage.manifest_lines import encode_line
from msrecd.storage.verify import Fault, Finding, Verdict, verify

__all__ = ["copy"]  # the fixture: a recording of five chunks, the first deleted by rotation

ALL = bool(os.environ.get("MSRECD_FAULTS"))
LINES = 6
BLAMES_A_CHUNK = {Fault.ALTERED, Fault.SWAPPED, Fault.MISSING, Fault.UNLISTED}


def manifest_of(folder: Path) -> Path:
    (path,) = folder.rglob("*.jsonl")
    return path


def edits(data: bytes, rng: random.Random) -> Iterator[tuple[int, int, int]]:
    """(line, place, another byte): each byte of the file once flipped in one bit, once made a newline or a quote."""
    line = 1
    for place, byte in enumerate(data):
        for other in (byte ^ (1 << rng.randrange(8)), rng.choice(b'\n"')):
            if other != byte:
                yield line, place, other
        line += byte == 0x0A


def edited_lines(findings: tuple[Finding, ...]) -> set[int]:
    texts = [finding.message.split(": line ")[1] for finding in findings if finding.fault is Fault.EDITED]
    return {int(text.split()[0]) for text in texts}


@pytest.mark.timeout(600 if ALL else 300)
@pytest.mark.effect("manifest-line: line_sha256", "manifest-line: prev")
@pytest.mark.promise("last-line-edited")
def test_every_byte_of_every_line_counts(copy: Path) -> None:
    """In the ordinary run the reading of each edit, and all of `verify` for a sample."""
    path = manifest_of(copy)
    data = path.read_bytes()
    assert data.count(b"\n") == LINES
    seen: set[int] = set()
    for number, (line, place, other) in enumerate(edits(data, random.Random(5))):
        new = data[:place] + bytes([other]) + data[place + 1 :]
        about = f"byte {place} of line {line} is {other}"
        contents = manifest.read(new)
        named = {*contents.edited, *contents.unreadable}
        assert not contents.broken, about
        assert not contents.removed, about
        if place == len(data) - 1:
            assert contents.torn, about
        elif other == 0x0A:  # there is a line more
            assert line in named <= {line, line + 1}, about
        else:
            assert named == {line}, about
        seen.add(line)
        if ALL or number % 29 == 0 or place == len(data) - 1:
            path.write_bytes(new)
            judge(verify(copy), line, is_end=place == len(data) - 1, is_understood=not contents.unreadable, about=about)
    assert seen == set(range(1, LINES + 1))


def judge(verdict: Verdict, line: int, *, is_end: bool, is_understood: bool, about: str) -> None:
    assert not verdict.is_proven, about
    found = {finding.fault for finding in verdict.findings}
    if is_end:
        assert found == {Fault.TORN, Fault.MISSING}, about
        return
    assert line in edited_lines(verdict.findings), about
    if is_understood:
        # A deletion that is said of another chunk leaves the deleted one missing.
        assert not found & BLAMES_A_CHUNK or (line == LINES and found == {Fault.EDITED, Fault.MISSING}), (about, found)


@pytest.mark.promise("last-line-edited")
def test_the_last_line_edited_is_named_and_the_exit_code_is_1(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = manifest_of(copy)
    lines = path.read_text().splitlines(keepends=True)[:-1]  # the last one is now that of the last chunk
    lines[-1] = lines[-1].replace('"lost_s":0.0', '"lost_s":9.0')
    path.write_text("".join(lines))
    assert main(["recordings", "verify", str(copy)]) == 1
    said = capsys.readouterr()
    assert "line 5 was edited" in said.out + said.err
    assert (Fault.EDITED, path.name) in faults(copy)


@pytest.mark.promise("line-removed-or-edited")
def test_a_line_taken_out_or_put_in_is_told_from_an_edited_one(copy: Path) -> None:
    path = manifest_of(copy)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    said = [finding.message.partition(": ")[2] for finding in verify(copy).findings if finding.fault is Fault.REMOVED]
    assert said == ["a line behind line 2 was removed, or line 3 put in: it does not follow from it"]
    assert (Fault.MISSING, f"{path.name}#3") in faults(copy)
    assert Fault.EDITED not in dict(faults(copy))
    path.write_bytes(b"".join(lines[1:]))
    assert "a line before line 1 was removed" in verify(copy).findings[0].message
    path.write_bytes(b"".join([*lines[:4], lines[1], *lines[4:]]))
    assert manifest.read(path.read_bytes()).removed == (5, 6)
    assert Fault.EDITED not in dict(faults(copy))
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b'"lost_s":0.0', b'"lost_s":9.0'), *lines[3:]]))
    assert Fault.REMOVED not in dict(faults(copy))
    assert edited_lines(verify(copy).findings) == {3}


@pytest.mark.promise("older-manifests")
def test_a_manifest_of_an_older_version_is_proven_and_goes_on(copy: Path) -> None:
    """Its lines have no hash of their own; an edit of one is seen in the next, as it was then."""
    path = manifest_of(copy)
    old, prev = [], ""
    for raw in path.read_bytes().splitlines():
        values = json.loads(raw)
        del values["line_sha256"]
        values["prev"] = prev
        old.append(json.dumps(values, separators=(",", ":")).encode())
        prev = hashlib.sha256(old[-1]).hexdigest()
    new = encode_line({"deleted": 2, "at": "2026-01-01T00:00:00Z", "reason": "age"}, prev)
    chunks(copy)[0].unlink()
    path.write_bytes(b"\n".join([*old, new, b""]))
    assert verify(copy).findings == ()
    path.write_bytes(b"\n".join([*old, new, b""]).replace(b'"lost_s":0.0', b'"lost_s":9.0', 1))
    (finding,) = verify(copy).findings
    assert "line 1 was edited" in finding.message
    stripped = json.dumps({k: v for k, v in json.loads(new).items() if k != "line_sha256"}).encode()
    path.write_bytes(b"\n".join([*old[:-1], new, stripped, b""]))  # behind a line that has one, one without
    assert edited_lines(tuple(f for f in verify(copy).findings if "not match" in f.message)) == {7}


def test_lines_are_as_their_schema_says(copy: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parents[2] / "docs/schemas/manifest-line.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    lines = [json.loads(raw) for raw in manifest_of(copy).read_bytes().splitlines()]
    for line in lines:
        validator.validate(line)
    assert not validator.is_valid(lines[0] | {"deleted": 1})
    assert not validator.is_valid(lines[0] | {"line_sha256": ""})
