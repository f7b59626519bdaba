"""webaudio/ of web-platform-tests as it is: its scripts run in Node, the interfaces are msrecd's.

`MSRECD_WPT=FOLDER pytest tests/conformance/test_wpt_webaudio.py`, where FOLDER holds a checkout of web-platform-tests
(`resources/testharness.js` and `webaudio/` are enough). `wpt/webaudio.csv` says for each file whether it applies, how
many of its assertions do not hold here, and why.
"""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.wpt import objects

CATALOGUE = Path(__file__).parent / "wpt" / "webaudio.csv"
FOLDER = os.environ.get("MSRECD_WPT", "")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def rows() -> list[dict[str, str]]:
    with CATALOGUE.open(newline="") as file:
        return list(csv.DictReader(file))


def run(root: Path, name: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # members that are unknown here
        return asyncio.run(objects.run(root, name))


APPLYING = [row for row in rows() if row["decided"] == "applies"] if FOLDER else []


@needs_node
@pytest.mark.timeout(120)
@pytest.mark.parametrize("row", APPLYING, ids=lambda row: row["file"])
def test_file(row: dict[str, str]) -> None:
    found = run(Path(FOLDER), f"webaudio/the-audio-api/{row['file']}")
    failed = [one for one in found["results"] if one["status"] != "pass"]
    told = "\n".join(f"{one['name']}: {one['message']}" for one in failed)
    assert found["problem"] is None, told
    assert len(found["results"]) > 0
    assert len(failed) == int(row["failing"] or 0), told


def test_every_row_is_decided() -> None:
    names = [row["file"] for row in rows()]
    assert len(set(names)) == len(names)
    for row in rows():
        assert row["decided"] in ("applies", "not"), row
        has_reason = row["decided"] == "not" or row["failing"] not in ("", "0")
        assert bool(row["reason"]) == has_reason, row


HARNESS = """
const all = []; let tell;
function setup() {}
function add_completion_callback(callback) { tell = callback; }
function test(body, name) {
  try { body(); all.push({name, status: 0}); } catch (error) { all.push({name, status: 1, message: String(error)}); }
}
function done() { tell(all, {status: 0}); }
"""
PAGE = """<!DOCTYPE html>
<script src="/resources/testharness.js"></script>
<script>
  window.Audit = true;  // the end is told below
  const context = new OfflineAudioContext({numberOfChannels: 1, length: 256, sampleRate: 8000});
  const buffer = context.createBuffer(1, 256, 8000);
  buffer.getChannelData(0).fill(0.5);
  const source = new AudioBufferSourceNode(context, {buffer});
  const gain = context.createGain();
  gain.gain.value = 0.5;
  source.connect(gain).connect(context.destination);
  source.start();
  test(() => { if (gain.context !== context || !(gain instanceof AudioNode)) throw 'not the same'; }, 'identity');
  test(() => { new GainNode(context, {gain: 'loud'}); }, 'a wrong value');
  context.oncomplete = (event) => {
    const sample = event.renderedBuffer.getChannelData(0)[200];
    test(() => { if (sample !== 0.25) throw sample; }, 'what is heard');
    allRead();
  };
  context.startRendering();
</script>
"""


@needs_node
def test_a_page_reaches_these_interfaces(tmp_path: Path) -> None:
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "testharness.js").write_text(HARNESS)
    (tmp_path / "page.html").write_text(PAGE)
    found = run(tmp_path, "page.html")
    assert found["problem"] is None
    assert {one["name"]: one["status"] for one in found["results"]} == {
        "identity": "pass",
        "a wrong value": "fail",
        "what is heard": "pass",
    }
    assert "TypeError" in next(one["message"] for one in found["results"] if one["name"] == "a wrong value")
