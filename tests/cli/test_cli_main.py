"""The entry of the command line: exit codes, errors in one line, nothing heavy loaded."""

from __future__ import annotations

import argparse
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import msrecd
from msrecd.cli import main
from msrecd.cli import main as entry
from msrecd.cli.errors import NoAnswerError, UsageError
from msrecd.cli.main import DEFAULT_CONFIG
from msrecd.config.problems import Report
from msrecd.errors import ConfigError, MsrecdError, StorageError

GOOD = '[device]\nid = "x"\n[[recorder]]\nname = "mic"\naudio = true\n'
MODULE = sys.modules["msrecd.cli.main"]


def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msrecd", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | env,
    )


def raising(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise problem

    fake = SimpleNamespace(add_arguments=lambda parser: None, run=fail)
    monkeypatch.setattr(MODULE, "load_command", lambda name: fake)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "msrecd.toml"
    path.write_text(GOOD, "utf-8")
    return path


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"msrecd {msrecd.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("check-config", "--colour"), ("--config",), ("check-config", "x")]
)
@pytest.mark.promise("exit-2")
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage: msrecd" in done.stderr
    assert done.stdout == ""


@pytest.mark.promise("config-before-or-behind")
def test_config_may_stand_before_or_behind_the_command(config: Path) -> None:
    for arguments in (
        ("--config", config, "check-config"),
        ("check-config", "--config", config),
        ("check-config", f"--config={config}"),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert str(config) in done.stdout


@pytest.mark.parametrize(
    ("problem", "code", "line"),
    [
        (MsrecdError("it broke"), 1, "msrecd: it broke\n"),
        (StorageError("no room"), 1, "msrecd: no room\n"),
        (UsageError("not so"), 2, "msrecd: not so\n"),
        (ConfigError("a.b: wrong"), 2, "a.b: wrong\n"),
        (NoAnswerError("nobody"), 3, "msrecd: nobody\n"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 1, "msrecd: /x: No such file or directory\n"),
        (
            ZeroDivisionError("odd\nthing"),
            1,
            "msrecd: unexpected ZeroDivisionError: odd thing (MSRECD_TRACEBACK=1 shows where)\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
@pytest.mark.effect("exit: 130")
def test_errors_become_a_line_and_a_code(
    problem: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MSRECD_TRACEBACK", raising=False)
    raising(monkeypatch, problem)
    assert entry(["devices"]) == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.promise("traceback-on-request")
def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("MSRECD_TRACEBACK", "1")
    raising(monkeypatch, ZeroDivisionError("x"))
    assert main(["devices"]) == 1
    assert caplog.records[0].exc_info is not None


def test_code_of_the_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []

    def answer(args: argparse.Namespace) -> int:
        seen.append(args)
        return 3

    fake = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--json", action="store_true"), run=answer)
    monkeypatch.setattr(MODULE, "load_command", lambda name: fake)
    assert main(["devices", "--json"]) == 3
    assert seen[0].json is True
    assert seen[0].config == Path("/etc/msrecd/msrecd.toml")


def test_reader_of_the_pipe_that_has_enough(config: Path) -> None:
    config.write_text(GOOD + "[[recorder.schedule]]\nstart = '* * * * *'\nduration = '1s'\n", "utf-8")
    command = f"{sys.executable} -m msrecd schedule --json --days 3 --config {config} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("[\n", "")


@pytest.mark.promise("device-id-is-told", "check-config-names-all")
def test_check_config_says_all_and_exits_2(config: Path) -> None:
    assert run("check-config", "--config", config).stdout == f"{config}: valid; device x; recorders: mic\n"
    config.write_text(GOOD + "colour = 1\n[[recorder.schedule]]\nstart = '61 6 * * *'\nduration = '1h'\n", "utf-8")
    done = run("check-config", "--config", config)
    assert done.returncode == 2
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("recorder[0].colour: unknown key")
    assert second.startswith("recorder[0].schedule[0].start: ")
    assert "bad minute" in second
    assert str(config) in first


def test_one_mistake_at_many_places_is_one_line(config: Path) -> None:
    cameras = "".join(
        f'[[recorder]]\nname = "cam{i}"\nvideo = true\nmime_type = "video/mp4;codecs=hvc1"\n' for i in range(15)
    )
    config.write_text(GOOD + cameras, "utf-8")
    (line,) = run("check-config", "--config", config).stderr.splitlines()
    assert line.startswith("recorder[1].mime_type: hvc1 is recorded only as a source delivers it")
    others = "recorder[2].mime_type, recorder[3].mime_type, recorder[4].mime_type and 11 more"
    assert line.endswith(f"likewise {others}")
    problems = json.loads(run("check-config", "--json", "--config", config).stdout)["problems"]
    assert [one["path"] for one in problems] == [f"recorder[{i}].mime_type" for i in range(1, 16)]


def test_a_problem_is_told_once() -> None:
    report = Report(Path("/"))
    for _ in range(15):
        report.add("recorder[0].mime_type", "is none")
    assert [str(one) for one in report.problems] == ["recorder[0].mime_type: is none"]


@pytest.mark.parametrize(("more", "warns"), [("", True), (', every = "1h"', False), (', at = "12:00"', False)])
def test_idle_snapshots_without_a_time_are_warned_of(config: Path, more: str, warns: bool) -> None:
    camera = f'[[recorder]]\nname = "cam0"\nvideo = true\nsnapshots = {{ idle = true{more} }}\n'
    config.write_text(GOOD + camera, "utf-8")
    done = run("check-config", "--config", config)
    assert done.returncode == 0
    words = "warning: recorder cam0: snapshots.idle without every or at: none is taken by itself"
    assert (words in done.stderr) is warns


def test_the_remedy_for_a_missing_web_password_makes_a_file_that_is_accepted(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "page"
    config.write_text(GOOD + f'[web]\nlisten = "0.0.0.0:8080"\npassword_file = "{file}"\n', "utf-8")
    refused = run("check-config", "--config", config).stderr
    _, _, remedy = refused.partition("make it with: ")
    remedy = remedy.partition(" (")[0]
    assert remedy == f"sudo -u msrecd sh -c 'umask 077; msrecd web-password > {file}'"
    script = remedy.removeprefix("sudo -u msrecd ").replace("msrecd web-", f"{sys.executable} -m msrecd web-")
    subprocess.run(script, shell=True, input=b"secret\n", check=True, timeout=60)
    accepted = run("check-config", "--config", config)
    assert accepted.returncode == 0, accepted.stderr
    config.write_text(GOOD + '[web]\nlisten = "0.0.0.0:8080"\n', "utf-8")
    assert "umask 077; msrecd web-password > FILE'" in run("check-config", "--config", config).stderr


@pytest.mark.effect("config: config_version")
def test_a_configuration_of_a_later_version_is_refused(config: Path) -> None:
    config.write_text("config_version = 2\n" + GOOD, "utf-8")
    done = run("check-config", "--config", config)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("config_version: ")
    config.write_text("config_version = 1\n" + GOOD, "utf-8")
    assert run("check-config", "--config", config).returncode == 0


@pytest.mark.promise("tables-as-json")
def test_check_config_as_json(config: Path) -> None:
    assert json.loads(run("check-config", "--json", "--config", config).stdout) == {
        "valid": True,
        "problems": [],
        "warnings": [],
    }
    config.write_text(GOOD + "colour = 1\n", "utf-8")
    done = run("check-config", "--json", "--config", config)
    assert done.returncode == 2
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["valid"] is False
    (problem,) = answer["problems"]
    assert set(problem) == {"path", "message", "file"}
    assert (problem["path"], problem["file"]) == ("recorder[0].colour", str(config))


def test_check_config_of_a_missing_file() -> None:
    done = run("check-config", "--config", "/no/such/file.toml")
    assert done.returncode == 2
    assert done.stderr == "/no/such/file.toml: there is no such file\n"


@pytest.mark.skipif(DEFAULT_CONFIG.exists(), reason=f"{DEFAULT_CONFIG} is there")
@pytest.mark.parametrize("command", ["run", "check-config"])
def test_without_any_configuration_it_is_said_where_to_begin(command: str) -> None:
    done = run(command)
    assert done.returncode == 2
    missing, advice = done.stderr.splitlines()
    assert missing == f"{DEFAULT_CONFIG}: there is no such file"
    assert "example" in advice
    assert "--config" in advice


def test_a_configuration_that_is_not_for_everybody(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert main(["check-config", "--config", str(config)]) == 2
    assert capsys.readouterr().err == f"{config}: cannot be read by this user; try with sudo\n"


@pytest.mark.parametrize("option", ["--video", "--audio"])
def test_what_is_no_json_gets_an_example(tmp_path: Path, option: str) -> None:
    done = run("record", "--virtual", option, "{width: 3}", str(tmp_path / "out.mkv"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"write for example {option} '{{" in line


def test_check_config_loads_no_heavy_library(config: Path) -> None:
    code = (
        "import sys; from msrecd.cli import main; main(['check-config', '--config', sys.argv[1]]);"
        "print([m for m in ('av', 'numpy', 'paho', 'picamera2', 'alsaaudio', 'astral') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.promise("completion")
def test_completion_has_every_command(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[[str], object] = MODULE.load_command  # type: ignore[attr-defined]
    empty = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--json", action="store_true"))
    ready = ("check-config", "schedule", "completion")
    monkeypatch.setattr(MODULE, "load_command", lambda name: real(name) if name in ready else empty)
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*MODULE.COMMANDS, "json", "days"):  # type: ignore[attr-defined]
        assert word in script


@pytest.mark.promise("completion")
def test_bash_completes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    real: Callable[[str], object] = MODULE.load_command  # type: ignore[attr-defined]
    empty = SimpleNamespace(add_arguments=lambda parser: None)
    monkeypatch.setattr(MODULE, "load_command", lambda name: real(name) if name == "schedule" else empty)
    monkeypatch.setattr(MODULE, "COMMANDS", {"schedule": "x", "devices": "y", "completion": "z"})
    empty.run = real("completion").run  # type: ignore[attr-defined]
    empty.add_arguments = lambda parser: parser.add_argument("shell", nargs="?", default="bash")
    assert main(["completion"]) == 0
    script = tmp_path / "completion.sh"
    script.write_text(capsys.readouterr().out, "utf-8")
    for line, expected in (("msrecd sche", "schedule"), ("msrecd --config f schedule --da", "--days")):
        words = " ".join(line.split())
        where = f"COMP_WORDS=({words}); COMP_CWORD={len(line.split()) - 1}"
        probe = f"source {script}; {where}; _msrecd; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == [expected]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_standard_output_is_named_and_harms_no_file(tmp_path: Path, unbuffered: str) -> None:
    out = tmp_path / "a.wav"
    command = f"{sys.executable} -m msrecd record --virtual --video false --duration 500ms {out} >/dev/full"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.stderr == "msrecd: standard output cannot be written: No space left on device\n"
    assert done.returncode == 1
    assert out.stat().st_size > 40_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--audio", "false", "x.wav"), "audio/wav holds no video, --audio is false"),
        (("--audio", "false", "--video", "false", "x.mp4"), "--video is false, --audio is false"),
    ],
)
def test_record_says_why_nothing_is_left_to_record(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "msrecd", "record", "--virtual", *arguments[:-1], str(tmp_path / arguments[-1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, f"msrecd: nothing is left to record: {said}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_warning_of_record_is_one_line(tmp_path: Path) -> None:
    words = ["--audio", "false", "--video", '{"widht": 320}', "--duration", "300ms", str(tmp_path / "x.webm")]
    command = [sys.executable, "-m", "msrecd", "record", "--virtual", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("msrecd: ")
    assert "'widht'" in line
    assert "did you mean width?" in line


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_harm_nothing(tmp_path: Path, closed: str) -> None:
    out = tmp_path / "a.wav"
    command = f"{sys.executable} -m msrecd record --virtual --video false --duration 500ms {out} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.read_bytes()[:4] == b"RIFF"  # nothing that was printed went into a file


@pytest.mark.promise("record-makes-one")
def test_what_a_killed_record_has_left_is_named(tmp_path: Path) -> None:
    left = tmp_path / "a.wav.part"
    left.write_bytes(b"x")
    done = run("record", "--virtual", tmp_path / "a.wav")
    assert done.returncode == 1
    assert done.stderr.startswith(f"msrecd: {left} is what an interrupted recording has left")


def test_a_configuration_that_was_named_must_be_usable(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text('[[recorder]]\nname = "Cam 0"\n')
    for command in (["devices"], ["devices", "--virtual"], ["record", "--virtual", tmp_path / "a.mp4"], ["schedule"]):
        for path, words in ((broken, "recorder[0].name"), (tmp_path / "none.toml", "no such file")):
            done = run(*command, "--config", path)
            assert (done.returncode, done.stdout) == (2, "")
            assert words in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("environment", "warns"), [({}, True), ({"INVOCATION_ID": "0"}, False)])
def test_root_outside_of_systemd_is_warned_of(tmp_path: Path, environment: dict[str, str], warns: bool) -> None:
    too_long = "x" * 300  # for a file system: it ends at once
    (tmp_path / "m.toml").write_text(f'[device]\nid = "x"\n[storage]\npath = "{too_long}"\n')
    kept = {name: value for name, value in os.environ.items() if name != "INVOCATION_ID"}
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", "run", "--config", str(tmp_path / "m.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=kept | environment,
    )
    assert ("running as root outside of systemd" in done.stderr) is warns, done.stderr
