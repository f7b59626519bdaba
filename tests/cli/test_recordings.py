"""`msrecd recordings` on folders: with and without a daemon, as a person calls it."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import judge
import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess
from waiting import until

from msrecd.clock import NS
from msrecd.muxing import ebml
from msrecd.vocabulary.times import format_utc, parse_utc
from msrecd.vocabulary.units import counted

RECORDER = camera(audio=True, timeslice="200ms", chunk_duration="1s", autostart=True)
MICROPHONE = microphone("mic", mime_type="audio/wav", timeslice="200ms", chunk_duration="1s", autostart=True)
LIMIT = 'retention = { max_total = "1MiB" }'
VIRTUAL = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] },
  { kind = "microphone", label = "Test Microphone", signal = "tone" },
]
"""


def call(config: Path | None, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msrecd", "recordings", *map(str, arguments)]
    if config is not None:
        command += ["--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")


def ok(config: Path | None, *arguments: object) -> str:
    done = call(config, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a daemon that recorded five chunks and more, and was stopped."""
    folder = tmp_path_factory.mktemp("finished")
    config = configuration(folder, port=None, recorders=RECORDER + MICROPHONE, more=VIRTUAL)
    with DaemonProcess(folder, config) as daemon:
        daemon.wait_for_chunks(6)
        daemon.wait_for_chunks(7, recorder="mic")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    for name in ("recordings", "state"):
        shutil.copytree(finished / name, tmp_path / name)
    (tmp_path / "msrecd.toml").write_text(configuration(tmp_path, port=None, recorders=RECORDER + MICROPHONE))
    return tmp_path


def config_of(folder: Path) -> Path:
    return folder / "msrecd.toml"


def chunks(folder: Path, extension: str = "mp4") -> list[Path]:
    return sorted((folder / "recordings").rglob(f"*.{extension}"))


def limit(folder: Path) -> None:
    """Let the microphone's recordings, 192 kB a second, have 1 MiB."""
    recorders = RECORDER + MICROPHONE + LIMIT
    config_of(folder).write_text(configuration(folder, port=None, recorders=recorders))


def listed(folder: Path, *arguments: str, recorder: str = "cam0") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        ok(config_of(folder), "list", "--json", "--recorder", recorder, *arguments)
    )
    return found


# --- list ------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("tables-as-json")
def test_list_shows_what_the_manifest_says(folder: Path) -> None:
    (recording,) = listed(folder)
    paths = chunks(folder)
    assert [chunk["file"] for chunk in recording["chunks"]] == [
        path.relative_to(folder / "recordings").as_posix() for path in paths
    ]
    assert recording["bytes"] == sum(path.stat().st_size for path in paths)
    assert recording["state"] == "finished"
    assert recording["gaps"] == []
    assert recording["recorder"] == "cam0"
    text = ok(config_of(folder), "list", "--chunks")
    assert recording["recording_id"] in text
    assert all(path.name in text for path in paths)


@pytest.mark.promise("times-of-lists")
def test_list_by_time_and_recorder(folder: Path) -> None:
    (recording,) = listed(folder)
    third = recording["chunks"][2]
    since = format_utc(parse_utc(third["started"]) + NS // 2)
    (part,) = listed(folder, "--since", since, "--until", since)
    assert [chunk["seq"] for chunk in part["chunks"]] == [3]
    assert listed(folder, "--until", "2001-01-01") == []
    assert listed(folder, "--since", "365d") == [recording]
    everything = json.loads(ok(config_of(folder), "list", "--json"))
    assert sorted(entry["recorder"] for entry in everything) == ["cam0", "mic"]
    assert "nothing is recorded in this range" in ok(config_of(folder), "list", "--until", "2001-01-01")


@pytest.mark.promise("far-times")
@pytest.mark.parametrize("since", ["0001-01-01", "1600-01-01T00:00:00Z", "999999d"])
@pytest.mark.parametrize("until", ["2263-01-01", "9999-12-31"])
def test_ranges_may_reach_beyond_all_that_can_be_recorded(folder: Path, since: str, until: str) -> None:
    config, out = config_of(folder), folder / "all.mkv"
    (recording,) = listed(folder, "--since", since, "--until", until)
    assert recording == listed(folder)[0]
    assert listed(folder, "--since", until) == listed(folder, "--until", since) == []
    ok(config, "protect", "--recorder", "cam0", "--from", since, "--to", until)
    assert listed(folder)[0]["protected"]
    ok(config, "export", "--recorder", "cam0", "--from", since, "--to", until, out)
    assert len(judge.read_chunk(out).numbers) == sum(len(judge.read_chunk(path).numbers) for path in chunks(folder))


@pytest.mark.promise("far-times")
@pytest.mark.parametrize(("since", "until"), [("0001-01-01", "1500-01-01"), ("2400-01-01", "9999-12-31")])
def test_a_range_beyond_all_that_can_be_recorded_is_empty(folder: Path, since: str, until: str) -> None:
    config, between = config_of(folder), ("--recorder", "cam0", "--from", since, "--to", until)
    assert listed(folder, "--since", since, "--until", until) == []
    done = call(config, "export", *between, folder / "none.mkv")
    assert (done.returncode, done.stdout) == (1, "")
    assert "recorded nothing that is finished and still there in this range" in done.stderr
    done = call(config, "protect", *between)
    assert "earlier" not in done.stderr, "refused although the range is one"
    assert not listed(folder)[0]["protected"]


def test_list_shows_what_is_gone(folder: Path) -> None:
    chunks(folder)[1].unlink()
    (recording,) = listed(folder)
    assert [chunk["missing"] for chunk in recording["chunks"]].count(True) == 1
    assert "1 missing" in ok(config_of(folder), "list")


# --- verify ----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("verify-proves-a-copy", "verify-needs-no-configuration")
def test_verify_needs_no_configuration_and_proves_a_copy(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder / "recordings", copy)
    count = len(chunks(folder)) + len(chunks(folder, "wav"))
    assert f"{copy}: proven: {count} chunks of 2 recordings" in ok(None, "verify", copy)
    assert "proven" in ok(config_of(folder), "verify")


@pytest.mark.promise("verify-proves-a-copy", "manifest-proves", "verify-names")
@pytest.mark.effect("manifest-line: sha256", "manifest-line: bytes")
def test_verify_names_each_finding(folder: Path) -> None:
    flipped, missing, torn = chunks(folder)[:3]
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    missing.unlink()
    os.truncate(torn, torn.stat().st_size - 1)
    done = call(None, "verify", folder / "recordings")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 4, lines
    assert f"{flipped.name}: altered" in lines[0]
    assert lines[1].endswith(f"{missing.name}: missing")
    assert f"{torn.name}: torn" in lines[2]
    assert "NOT proven: 1 altered, 1 missing, 1 torn" in lines[3]
    document = json.loads(call(None, "verify", folder / "recordings", "--json").stdout)
    assert document["proven"] is False
    assert [finding["fault"] for finding in document["findings"]] == ["altered", "missing", "torn"]


@pytest.mark.promise("nothing-is-no-proof")
def test_nothing_is_proven_where_nothing_is(folder: Path, tmp_path: Path) -> None:
    """A copy that failed must not pass a script."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for wrong in (empty, folder / "state"):
        done = call(None, "verify", wrong)
        assert (done.returncode, done.stderr) == (1, "")
        assert f"{wrong}: NOT proven, for there was nothing to prove: no recordings here" in done.stdout
        document = call(None, "verify", wrong, "--json")
        assert document.returncode == 1
        assert json.loads(document.stdout) | {"findings": []} == {
            "proven": False,
            "manifests": 0,
            "chunks": 0,
            "snapshots": 0,
            "bytes": 0,
            "findings": [],
        }


def test_a_line_taken_out_of_a_manifest_is_no_edited_one(folder: Path) -> None:
    manifest = next(path for path in (folder / "recordings").rglob("*.jsonl") if "mic" in path.name)
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:2] + lines[3:]))
    done = call(None, "verify", folder / "recordings")
    assert done.returncode == 1
    assert "a line behind line 2 was removed" in done.stdout
    assert "NOT proven: 1 missing, 1 removed, 1 unlisted" in done.stdout
    assert "edited" not in done.stdout


@pytest.mark.promise("prune-shows-its-plan", "deleted-is-not-missing")
def test_what_prune_deleted_is_not_missing(folder: Path) -> None:
    limit(folder)
    before = chunks(folder, "wav")
    plan = json.loads(ok(config_of(folder), "prune", "--dry-run", "--json"))
    assert chunks(folder, "wav") == before
    assert 0 < len(plan) < len(before)
    assert "would be deleted" in ok(config_of(folder), "prune", "--dry-run")
    assert json.loads(ok(config_of(folder), "prune", "--json")) == plan
    assert chunks(folder, "wav") == before[len(plan) :]
    assert {item["reason"] for item in plan} == {"recorder_max_total"}
    assert "proven" in ok(config_of(folder), "verify")
    assert "nothing to delete" in ok(config_of(folder), "prune")


@pytest.mark.promise("proven-only-is-deleted", "prune-as-the-daemon")
def test_prune_leaves_what_the_store_has_not_proven_as_the_daemon_does(folder: Path) -> None:
    limit(folder)
    assert json.loads(ok(config_of(folder), "prune", "--dry-run", "--json")) != []
    keys = folder / "credentials"
    keys.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = s\n")
    keys.chmod(0o600)
    with config_of(folder).open("a") as file:
        file.write(
            '\n[offload]\nkind = "s3"\nendpoint = "http://127.0.0.1:1"\nbucket = "recordings"\ndelete = "proven"\n'
            f'credentials_file = "{keys}"\n'
        )
    before = chunks(folder, "wav")
    for arguments in (("prune", "--dry-run"), ("prune",)):
        done = call(config_of(folder), *arguments)
        assert (done.returncode, done.stdout) == (0, "nothing to delete\n"), done
        assert "wait for the store of [offload]" in done.stderr, done
    assert chunks(folder, "wav") == before


# --- protect ---------------------------------------------------------------------------------------------------------


@pytest.mark.promise("only-own-chunks-go", "prune-as-the-daemon")
def test_protected_recordings_stay(folder: Path) -> None:
    limit(folder)
    (recording,) = listed(folder, recorder="mic")
    recording_id = recording["recording_id"]
    assert ok(config_of(folder), "protect", recording_id) == f"{recording_id}: protected\n"
    assert listed(folder, recorder="mic")[0]["protected"] is True
    for arguments in (("prune", "--dry-run"), ("prune",)):  # as many as the limit would take say why they stay
        done = call(config_of(folder), *arguments)
        assert (done.returncode, done.stdout) == (0, "nothing to delete\n"), done
        assert re.search(r"more chunks?, .*, beyond the limits, left, being protected", done.stderr), done
    assert call(config_of(folder), "prune", "--json").stdout == "[]\n"
    assert ok(config_of(folder), "unprotect", recording_id) == f"{recording_id}: not protected\n"
    assert json.loads(ok(config_of(folder), "prune", "--dry-run", "--json")) != []


@pytest.mark.promise("protect-refuses-what-is-not-there")
def test_protecting_chunks_that_are_not_there_names_those_that_are(folder: Path) -> None:
    (recording,) = listed(folder, recorder="mic")
    recording_id, last = recording["recording_id"], recording["chunks"][-1]["seq"]
    for asked in (f"{last + 1}-{last + 9}", f"1-{last + 1}"):
        done = call(config_of(folder), "protect", recording_id, "--chunks", asked)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"msrecd: {recording_id} has no chunks {asked}: its chunks are 1-{last}\n"
    assert listed(folder, recorder="mic")[0]["protected"] is False
    ok(config_of(folder), "protect", recording_id, "--chunks", f"2-{last}")
    (partly,) = listed(folder, recorder="mic")
    assert (partly["protected"], partly["protected_chunks"]) == (False, last - 1)
    done = call(config_of(folder), "unprotect", recording_id, "--chunks", f"2-{last + 1}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"msrecd: {recording_id} has no chunks 2-{last + 1}: its chunks are 1-{last}\n"
    ok(config_of(folder), "unprotect", recording_id, "--chunks", f"2-{last}")


@pytest.mark.promise("prune-as-the-daemon")
def test_prune_says_what_of_the_limits_does_not_hold(folder: Path) -> None:
    """No deleting makes room that the disk does not have."""
    config_of(folder).write_text(configuration(folder, port=None, recorders=RECORDER, storage='min_free = "1000TiB"'))
    assert "deleted" in call(config_of(folder), "prune").stdout
    done = call(config_of(folder), "prune")
    assert (done.returncode, done.stdout) == (0, "nothing to delete\n"), done
    assert "storage.min_free = 1000TiB is more than there is at all: lower it" in done.stderr, done


def test_protecting_what_is_not_there_fails(folder: Path) -> None:
    done = call(config_of(folder), "protect", "20260101T000000Z-cam0-0000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "msrecd: there is no recording '20260101T000000Z-cam0-0000'\n"
    done = call(config_of(folder), "protect", "../../etc")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


# --- recover ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.promise("open-becomes-recovered")
def test_recover_after_a_kill(tmp_path: Path) -> None:
    config = configuration(tmp_path, port=None, recorders=RECORDER.replace('"1s"', '"60s"'), more=VIRTUAL)
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.wait_for_part(least_bytes=40_000)
        refused = call(daemon.config, "recover")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "a daemon uses" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert call(daemon.config, "recover", "--dry-run").returncode == 1
        assert ok(daemon.config, "list").splitlines()[1].endswith("  recording")
        daemon.kill()
        (part,) = daemon.parts()
    assert ok(daemon.config, "list").splitlines()[1].endswith("  unfinished")
    nothing_yet = call(daemon.config, "verify")
    assert nothing_yet.returncode == 1
    assert "not finished" in nothing_yet.stdout
    assert "nothing to prove: no chunk is finished yet" in nothing_yet.stdout
    (plan,) = json.loads(ok(daemon.config, "recover", "--dry-run", "--json"))
    assert part.exists()
    assert 0 < plan["kept_bytes"] <= plan["bytes"] == part.stat().st_size
    assert ": would be recovered, " in ok(daemon.config, "recover", "--dry-run")
    document = json.loads(ok(daemon.config, "recover", "--json"))
    assert document["lost"] == []
    (line,) = document["recovered"]
    assert (line["file"], line["bytes"]) == (plan["file"], plan["kept_bytes"])
    assert not part.exists()
    judge.assert_consecutive(judge.read_chunk(daemon.recordings / line["file"]).numbers)
    assert "proven" in ok(daemon.config, "verify")
    assert ok(daemon.config, "recover") == "nothing to recover\n"
    assert ok(daemon.config, "recover", "--dry-run") == "nothing to recover\n"


# --- beside a daemon -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.promise("recover-refuses")
def test_everything_but_recover_works_beside_a_daemon(tmp_path: Path) -> None:
    config = configuration(tmp_path, port=None, recorders=RECORDER, more=VIRTUAL)
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.wait_for_chunks(3)
        (recording,) = json.loads(ok(daemon.config, "list", "--json"))
        assert recording["state"] == "recording"
        for _ in range(3):  # chunks are finished meanwhile
            assert "proven" in ok(daemon.config, "verify")
        ok(daemon.config, "protect", recording["recording_id"])
        assert "nothing to delete" in ok(daemon.config, "prune")
        out = tmp_path / "out.mp4"
        said = ok(daemon.config, "export", "--recorder", "cam0", "--from", "1h", "--to", "0s", out)
        assert "behind the file's end" not in said
        judge.assert_consecutive(judge.read_chunk(out).numbers)
        count = len(daemon.chunks())
        daemon.wait_for_chunks(count + 2)
        assert daemon.stop() == 0
        assert "rror" not in daemon.log.read_text()
    assert "proven" in ok(daemon.config, "verify")


# --- export ----------------------------------------------------------------------------------------------------------


def test_an_export_says_what_is_still_being_written(tmp_path: Path) -> None:
    config = configuration(tmp_path, port=None, recorders=RECORDER.replace('"1s"', '"4s"'), more=VIRTUAL)
    with DaemonProcess(tmp_path, config) as daemon:
        daemon.wait_for_chunks(1)
        export = ("export", "--recorder", "cam0", "--from", "1h", "--to", "0s")
        said: list[str] = []

        def is_told() -> bool:
            """Unless a chunk has just been finished."""
            said[:] = ok(daemon.config, *export, tmp_path / f"{time.monotonic_ns()}.mp4").splitlines()
            return len([line for line in said if line.startswith("still being written, from ")]) == 1

        until(is_told, lambda: "\n".join(said), timeout=60)
        assert not [line for line in said if "behind the file's end" in line]
        daemon.kill()
    lines = ok(daemon.config, *export, tmp_path / "two.mp4").splitlines()
    assert [line for line in lines if line.startswith("to be recovered: msrecd recordings recover, from ")]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.promise("export-without-encoding")
def test_export_joins_everything(folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"all.{suffix}"
    text = ok(config_of(folder), "export", "--recorder", "cam0", "--from", "7d", "--to", "0s", out)
    found = judge.read_chunk(out)
    parts = [judge.read_chunk(path) for path in chunks(folder)]
    assert len(parts) >= 6
    assert found.numbers == [number for part in parts for number in part.numbers]
    judge.assert_consecutive(found.numbers)
    assert found.audio_gaps == []
    skip = found.sample_rate // 20
    assert judge.phase_jumps(found.samples[skip:-skip], found.sample_rate, 440) == []
    name, _, said = text.splitlines()[0].partition(": ")
    assert name == str(out)
    assert float(said.split(" s from ")[0]) == pytest.approx(len(found.numbers) / 30, abs=0.05)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(("suffix", "recorder"), [("mkv", "cam0"), ("mka", "mic")])
@pytest.mark.promise("export-is-finished")
@pytest.mark.promise("page-export-cues")
def test_an_exported_file_says_how_long_it_is_and_where_its_key_frames_are(
    folder: Path, tmp_path: Path, suffix: str, recorder: str
) -> None:
    out = tmp_path / f"ALL.{suffix.upper()}"
    text = ok(config_of(folder), "export", "--recorder", recorder, "--from", "7d", "--to", "0s", out)
    said_s = float(text.splitlines()[0].partition(": ")[2].split(" s from ")[0])
    data = out.read_bytes()
    content = data.index(ebml.SEGMENT.to_bytes(4, "big")) + 12
    inside = list(ebml.elements(data[content:]))
    info = dict(ebml.elements(dict(inside)[ebml.INFO]))
    assert struct.unpack(">d", info[ebml.DURATION])[0] / 1000 == pytest.approx(said_s, abs=0.2)  # gaps are told apart
    cues = list(ebml.elements(dict(inside)[ebml.CUES]))
    assert len(cues) >= 6
    assert ebml.CUES.to_bytes(4, "big") in dict(inside)[ebml.SEEK_HEAD]


@pytest.mark.promise("export-keeps-gaps")
def test_export_of_a_range_with_a_hole(folder: Path, tmp_path: Path) -> None:
    (recording,) = listed(folder)
    (folder / "recordings" / recording["chunks"][2]["file"]).unlink()
    out = tmp_path / "range.mp4"
    from_, to = recording["chunks"][1]["started"], recording["chunks"][4]["started"]
    text = ok(config_of(folder), "export", "--recorder", "cam0", "--from", from_, "--to", to, out)
    found = judge.read_chunk(out)
    assert len(found.numbers) == pytest.approx(60, abs=2)
    steps = [b - a for a, b in zip(found.times, found.times[1:], strict=False)]
    assert max(steps) == pytest.approx(1 + 1 / 30, abs=0.05)
    assert found.times[-1] + 1 / 30 == pytest.approx(3.0, abs=0.05)
    assert "a gap in the file" in text


@pytest.mark.promise("export-refuses-to-replace")
def test_export_refuses_what_would_do_harm(folder: Path, tmp_path: Path) -> None:
    base = ("export", "--recorder", "cam0", "--from", "7d", "--to", "0s")
    out = tmp_path / "out.mp4"
    out.write_bytes(b"mine")
    for arguments, message in (
        ((*base, out), "--force replaces it"),
        ((*base, tmp_path / "out.avi"), "ends in .mp4"),
        ((*base, tmp_path / "no" / "out.mp4"), "is not there"),
        ((*base, folder / "recordings" / "cam0" / "out.mp4"), "write somewhere else"),
        (("export", "--recorder", "cam9", *base[3:], out), 'there is no recorder "cam9"'),
        (("export", "--recorder", "cam0", "--from", "0s", "--to", "1h", out), "must be earlier"),
        (("export", "--recorder", "cam0", "--from", "noon", "--to", "1h", out), "--from: 'noon' is no time"),
    ):
        done = call(config_of(folder), *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert out.read_bytes() == b"mine"
    done = call(config_of(folder), "export", "--recorder", "cam0", "--from", "2001-01-01", "--to", "2001-01-02",
                tmp_path / "none.mp4")  # fmt: skip
    assert done.returncode == 1
    assert "recorded nothing" in done.stderr
    ok(config_of(folder), *base, "--force", out)
    assert len(judge.read_chunk(out).numbers) > 100


def test_export_of_a_broken_chunk_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    broken = chunks(folder)[3]
    broken.write_bytes(b"x" * 5000)
    out = tmp_path / "out.mp4"
    done = call(config_of(folder), "export", "--recorder", "cam0", "--from", "7d", "--to", "0s", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert broken.name in done.stderr
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("protect",), ("export", "x.mp4"), ("list", "--since", "noon"), ("prune", "x")]
)
def test_wrong_usage_is_2(folder: Path, arguments: tuple[str, ...]) -> None:
    done = call(config_of(folder) if arguments else None, *arguments)
    assert (done.returncode, done.stdout) == (2, "")


def test_storage_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = tmp_path / "msrecd.toml"
    config.write_text(configuration(tmp_path, port=None, recorders=RECORDER))
    for arguments in (("list",), ("verify",), ("recover",), ("prune",)):
        done = call(config, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert str(tmp_path / "recordings") in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "recordings").exists()
    missing = call(tmp_path / "none.toml", "list")
    assert missing.returncode == 2


def test_one_of_a_kind_is_no_plural() -> None:
    assert [counted(number, "chunk") for number in (0, 1, 2)] == ["0 chunks", "1 chunk", "2 chunks"]
