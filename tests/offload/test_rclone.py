"""Files go to a store that rclone reaches: a folder, an S3 server, one without hashes; whatever ends in between."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from offloading import Bench, MakeStore, record
from ports import free_port
from s3server import BUCKET, KEYS, VERSITYGW, versitygw
from waiting import until

from msrecd.errors import ConfigError
from msrecd.offload.proof import verify_store
from msrecd.offload.rclone import RcloneTarget
from msrecd.offload.rcloneconfig import RcloneSettings, read_kind
from msrecd.offload.rclonedaemon import error_of
from msrecd.offload.rclonestore import RcloneStore
from msrecd.offload.target import Refused, Stopped, StoreError, Unfit, Unreachable
from msrecd.storage.store import Store

pytestmark = pytest.mark.skipif(
    shutil.which("rclone") is None, reason="rclone is not installed: scripts/setup.sh --tests does"
)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where the remotes `disk` and `crypt` end."""
    folder = tmp_path / "nas"
    folder.mkdir()
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder of recordings."""
    folder = tmp_path / "made"
    folder.mkdir()
    return folder


@pytest.fixture
def config_file(tmp_path: Path, disk: Path) -> Path:
    secret = subprocess.run(["rclone", "obscure", "word"], capture_output=True, text=True, check=True, timeout=30)
    file = tmp_path / "rclone.conf"
    file.write_text(
        f"[disk]\ntype = local\n[crypt]\ntype = crypt\nremote = disk:{disk}/crypt\npassword = {secret.stdout}\n"
    )
    file.chmod(0o600)
    return file


@pytest.fixture
def target(config_file: Path, disk: Path) -> Iterator[Callable[..., RcloneTarget]]:
    made: list[RcloneTarget] = []

    def make(root: Path, remote: str = f"disk:{disk}", **more: object) -> RcloneTarget:
        unit = more.pop("unit", None)
        settings = RcloneSettings(remote=remote, config_file=config_file, prefix="pi/", **more)  # type: ignore[arg-type]
        made.append(RcloneTarget(settings, root, unit=unit))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def files_of(store: Store) -> dict[str, bytes]:
    """Chunks, and each line of a manifest as the object that it becomes."""
    found = {}
    for path in store.path.rglob("*"):
        name = path.relative_to(store.path).as_posix()
        if path.suffix == ".wav":
            found[name] = path.read_bytes()
        elif path.suffix == ".jsonl":
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                found[f"{name}.{number:06d}"] = line
    return found


def there(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def processes_of(word: str) -> list[int]:
    """Processes that have a word among their arguments or in their environment's RCLONE_CONFIG."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def rclone_processes(config_file: Path) -> list[int]:
    return processes_of(f"RCLONE_CONFIG={config_file}")


@pytest.mark.promise("offload-by-rclone")
def test_all_arrives_in_a_folder_and_the_store_alone_proves_it(
    make_store: MakeStore, target: Callable[..., RcloneTarget], config_file: Path, disk: Path
) -> None:
    store = make_store()
    record(store, 3)
    bench = Bench(store, target(store.path))
    bench.turns()
    assert bench.failed == []
    assert [(facts["seq"], facts["proof"], facts["store"]) for facts in bench.proven] == [
        (seq, "sha256", f"rclone:disk:{disk}") for seq in (1, 2, 3)
    ]
    assert there(disk / "pi") == files_of(store), "with no .part left"
    client = RcloneStore(RcloneSettings(remote=f"disk:{disk}", config_file=config_file, prefix="pi/"))
    try:
        verdict = verify_store(client)
        assert (verdict.is_proven, verdict.findings, verdict.chunks) == (True, (), 3)
        first, second, *_ = sorted((disk / "pi").rglob("*.wav"))
        first.write_bytes(b"x" * first.stat().st_size)
        second.unlink()
        assert {str(finding.fault) for finding in verify_store(client).findings} == {"altered", "missing"}
    finally:
        client.close()


def test_a_store_without_hashes_is_read_back(
    make_store: MakeStore, target: Callable[..., RcloneTarget], config_file: Path
) -> None:
    store = make_store()
    record(store, 2)
    bench = Bench(store, target(store.path, "crypt:"))
    bench.turns()
    assert [facts["proof"] for facts in bench.proven] == ["download", "download"]
    client = RcloneStore(RcloneSettings(remote="crypt:", config_file=config_file, prefix="pi/"))
    try:
        assert verify_store(client).is_proven
    finally:
        client.close()


def test_an_s3_server_proves_by_its_own_hash(
    make_store: MakeStore, target: Callable[..., RcloneTarget], config_file: Path, tmp_path: Path
) -> None:
    if not Path(VERSITYGW).exists():
        pytest.skip("versitygw is not installed: scripts/setup.sh --tests builds it where there is Go")
    port = free_port()
    with config_file.open("a") as file:
        file.write(
            f"[gateway]\ntype = s3\nprovider = Other\nendpoint = http://127.0.0.1:{port}\n"
            f"access_key_id = {KEYS.access_key}\nsecret_access_key = {KEYS.secret_key}\nregion = us-east-1\n"
        )
    store = make_store()
    record(store, 2)
    bench = Bench(store, target(store.path, f"gateway:{BUCKET}"))
    bench.sender.turn()
    assert bench.sender.health()["state"] == "failing", "nobody listens there yet"
    assert bench.failed == [], "and that is nothing a person has to do"
    with versitygw(tmp_path / "gateway", port):
        bench.turns()
        assert [facts["proof"] for facts in bench.proven] == ["md5", "md5"]
        assert there(tmp_path / "gateway" / BUCKET / "pi") == files_of(store)


def test_sftp_proves_by_what_the_other_side_hashes(
    make_store: MakeStore, target: Callable[..., RcloneTarget], config_file: Path, disk: Path
) -> None:
    port = free_port()
    secret = subprocess.run(["rclone", "obscure", "word"], capture_output=True, text=True, check=True, timeout=30)
    with config_file.open("a") as file:
        file.write(f"[nas]\ntype = sftp\nhost = 127.0.0.1\nport = {port}\nuser = u\npass = {secret.stdout}\n")
    store = make_store()
    record(store, 2)
    server = subprocess.Popen(
        ["rclone", "serve", "sftp", str(disk), "--addr", f"127.0.0.1:{port}", "--user", "u", "--pass", "word"],
        env={"PATH": os.environ["PATH"], "HOME": str(disk.parent), "RCLONE_CONFIG": str(config_file)},
        stderr=subprocess.DEVNULL,
    )
    try:
        bench = Bench(store, target(store.path, "nas:"))
        until(lambda: bench.sender.turn() == 0 and bench.proven, "nothing arrives")
        bench.turns()
        assert bench.failed == []
        assert {facts["proof"] for facts in bench.proven} <= {"sha256", "sha1", "md5"}
        assert there(disk / "pi") == files_of(store)
    finally:
        server.kill()
        server.wait(10)


def test_nothing_is_overwritten_and_what_broke_off_is_sent_again(
    make_store: MakeStore, target: Callable[..., RcloneTarget], disk: Path
) -> None:
    store = make_store()
    record(store, 2)
    first, second = sorted(name for name in files_of(store) if name.endswith(".wav"))
    (disk / "pi" / first).parent.mkdir(parents=True)
    (disk / "pi" / first).write_bytes(b"somebody else's")
    (disk / "pi" / f"{second}.part").write_bytes(b"x" * 2000)  # of the same size, from a transfer that was cut
    bench = Bench(store, target(store.path))
    bench.turns()
    assert (disk / "pi" / first).read_bytes() == b"somebody else's"
    assert [facts["seq"] for facts in bench.proven] == [2]
    assert "other content" in bench.failed[0]
    assert (disk / "pi" / second).read_bytes() == files_of(store)[second]
    assert not list(disk.rglob("*.part"))


def test_a_store_in_the_folder_of_the_recordings_proves_nothing(
    make_store: MakeStore, config_file: Path, tmp_path: Path
) -> None:
    """Each file would be there already, and rotation would delete the only one."""
    store = make_store()
    record(store, 1)
    link = tmp_path / "link"
    link.symlink_to(store.path)
    for place in (store.path, store.path / "nas", link):
        client = RcloneTarget(RcloneSettings(remote=f"disk:{place}", config_file=config_file), store.path)
        bench = Bench(store, client)
        bench.sender.turn()
        client.close()
        assert bench.proven == []
        assert "folder of the recordings" in bench.failed[0]
        assert bench.codes == ["offload_failed"]


@pytest.mark.parametrize(
    ("remote", "prefix", "is_refused"),
    [
        ("disk:{0}/recordings", "", True),
        ("disk:{0}/recordings/nas", "", True),
        ("disk:{0}/link", "", True),
        ("disk:{0}", "recordings/pi-", True),
        ("short:nas", "", True),
        ("crypt:", "", True),
        ("disk:{0}/nas", "recordings/", False),
        ("there:recordings", "", False),
        ("strange:", "", False),
    ],
)
def test_check_config_refuses_a_store_in_the_folder_of_the_recordings(
    tmp_path: Path, remote: str, prefix: str, is_refused: bool
) -> None:
    """Where the remote ends by rclone's configuration, without rclone."""
    (tmp_path / "recordings").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "recordings")
    file = tmp_path / "rclone.conf"
    file.write_text(
        f"[disk]\ntype = local\n[short]\ntype = alias\nremote = {tmp_path}/recordings\n"
        f"[crypt]\ntype = crypt\nremote = disk:{tmp_path}/recordings/x\n[there]\ntype = sftp\nhost = h\n"
        "[strange]\ntype = alias\nremote = :sftp,host=h:recordings\n"
    )
    file.chmod(0o600)
    path = tmp_path / "msrecd.toml"
    path.write_text(
        f'[device]\nid = "x"\n[storage]\npath = "recordings"\n[offload]\nkind = "rclone"\n'
        f'remote = "{remote.format(tmp_path)}"\nconfig_file = "rclone.conf"\nprefix = "{prefix}"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", "check-config", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (2 if is_refused else 0), done.stderr
    problem = f"offload.remote: lies in {tmp_path}/recordings, the folder of the recordings: name another place"
    assert (problem in done.stderr) is is_refused


def test_a_file_that_is_not_what_was_recorded_is_not_sent(
    make_store: MakeStore, target: Callable[..., RcloneTarget], disk: Path
) -> None:
    store = make_store()
    record(store, 1)
    (name,) = (name for name in files_of(store) if name.endswith(".wav"))
    (store.path / name).write_bytes(b"?" * 2000)
    bench = Bench(store, target(store.path))
    bench.turns()
    assert not list(disk.rglob("*.wav*"))
    assert "not what was recorded" in bench.failed[0]


def test_whoever_is_killed_all_arrives_once(
    make_store: MakeStore, target: Callable[..., RcloneTarget], config_file: Path, disk: Path
) -> None:
    """rclone, and the process that asks it, end in the middle of files."""
    store = make_store()
    record(store, 6, size=200_000)
    client = target(store.path, rate=400_000)
    bench = Bench(store, client)
    ends = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not ends.wait(0.6) and len(killed) < 4:
            if len(killed) % 2 == 0:
                victims = [pid for pid in rclone_processes(config_file) if b"rcd" in cmdline(pid)]
            else:
                victims = [child.pid] if (child := client._child) is not None else []
            for pid in victims[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        bench.turns()
    finally:
        ends.set()
        thread.join()
    assert len(killed) >= 2
    assert sorted(facts["seq"] for facts in bench.proven) == [1, 2, 3, 4, 5, 6]
    assert there(disk / "pi") == files_of(store)
    client.close()
    until(lambda: not rclone_processes(config_file), "rclone outlives the process that asks it")


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_max_rate_holds_and_a_stop_does_not_wait(
    target: Callable[..., RcloneTarget], config_file: Path, made: Path
) -> None:
    data = os.urandom(300_000)
    (made / "big").write_bytes(data)
    client = target(made, rate=100_000)

    def put() -> str:
        with (made / "big").open("rb") as file:
            return client.put("big", file, size=len(data), sha256=hashlib.sha256(data).hexdigest(), mime_type="")

    timer = threading.Timer(1.5, client.stop)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(Stopped):
        put()
    assert 1.4 <= time.monotonic() - begun < 2.9, "at this rate it takes three seconds"
    timer.join()
    client.close()
    until(lambda: not rclone_processes(config_file), "rclone goes on after the stop")


@pytest.mark.promise("rclone-rate")
def test_max_rate_holds_after_a_pause(target: Callable[..., RcloneTarget], made: Path) -> None:
    """rclone would save up what it did not send in the pause, up to 4 MiB, and send this file at once."""
    client = target(made, rate=200_000)

    def put(name: str, data: bytes) -> float:
        (made / name).write_bytes(data)
        begun = time.monotonic()
        with (made / name).open("rb") as file:
            client.put(name, file, size=len(data), sha256=hashlib.sha256(data).hexdigest(), mime_type="")
        return time.monotonic() - begun

    put("first", b"x")
    time.sleep(1.0)  # a pause, in which it could save up the whole next file
    took = put("second", os.urandom(180_000))
    assert took > 0.8, "at 200 kB a second"
    client.close()


def test_the_unit_serves_each_daemon_with_a_process_of_its_own(
    target: Callable[..., RcloneTarget],
    config_file: Path,
    disk: Path,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As msrecd-rclone.socket does it: systemd listens and accepts; and programs that set capabilities fail there."""
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("systemd-socket-activate is not installed")
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))  # as in a service
    (made / "a").write_bytes(b"abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    address = tmp_path / "unit.sock"
    client = target(made, unit=address)
    with pytest.raises(Refused, match=r"systemctl enable --now msrecd-rclone\.socket"):
        client.put("a", io.BytesIO(b"abc"), size=3, sha256=sha256, mime_type="")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "setpriv").write_text("#!/bin/sh\necho 'setpriv: activate capabilities' >&2\nexit 127\n")
    (programs / "setpriv").chmod(0o755)
    environment = [f"PYTHONPATH={os.pathsep.join(sys.path)}", f"PATH={programs}:{os.environ['PATH']}"]
    unit = subprocess.Popen(
        [
            *(activate, "--accept", "--inetd", "-l", str(address), *(f"-E{one}" for one in environment)),
            *(sys.executable, "-P", "-m", "msrecd.offload.runner"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(address.exists, "systemd-socket-activate does not listen")
        with (made / "a").open("rb") as file:
            assert client.put("a", file, size=3, sha256=sha256, mime_type="") == "sha256"
        assert client._child is None
        assert (disk / "pi/a").read_bytes() == b"abc"
        assert rclone_processes(config_file)
        client.close()
        until(lambda: not rclone_processes(config_file), "it outlives its connection")
    finally:
        unit.kill()
        unit.wait(10)


def test_what_rclones_words_mean() -> None:
    assert isinstance(error_of("Get http://x: dial tcp 127.0.0.1:1: connect: connection refused"), Unreachable)
    assert isinstance(error_of("SlowDown: try again, status code: 503"), Unreachable)
    assert isinstance(error_of("AccessDenied: status code: 403"), Refused)
    assert isinstance(error_of("couldn't connect: ssh: unable to authenticate\n\x1b[31m"), Refused)
    assert "\x1b" not in error_of("a\x1bb").message


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_in_the_place_of_the_store_is_named(
    target: Callable[..., RcloneTarget], config_file: Path, disk: Path, made: Path, below: str
) -> None:
    (made / "a").write_bytes(b"abc")
    (disk / "file").write_bytes(b"x")
    remote = f"disk:{disk}/file{below}"
    said = f"{remote}: a file is in the place of a folder; move it away, or name another place"
    with pytest.raises(Refused) as refused, (made / "a").open("rb") as file:
        target(made, remote).put("a", file, size=3, sha256=hashlib.sha256(b"abc").hexdigest(), mime_type="")
    assert refused.value.message == said
    for prefix in () if below else ("", "pi/"):  # of a folder that is not there there is nothing to list
        store = RcloneStore(RcloneSettings(remote=remote, config_file=config_file, prefix=prefix))
        try:
            with pytest.raises(StoreError) as refused:
                list(store.keys())
        finally:
            store.close()
        assert refused.value.message == said


def test_what_is_wrong_is_said(target: Callable[..., RcloneTarget], config_file: Path, made: Path) -> None:
    (made / "a").write_bytes(b"abc")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    for remote, words in (("nas:x", 'no remote "nas"'), ("disk:/proc/none", "proc")):
        with pytest.raises(Refused, match=words), (made / "a").open("rb") as file:
            target(made, remote).put("a", file, size=3, sha256=sha256, mime_type="")
    with pytest.raises(Unfit, match="not there"), (made / "a").open("rb") as file:
        target(made).put("b", file, size=3, sha256=sha256, mime_type="")
    config_file.chmod(0o640)
    with pytest.raises(ConfigError, match="open to others"):
        read_kind("disk:", config_file)
    config_file.chmod(0o600)
    config_file.write_text("# Encrypted rclone configuration File\nRCLONE_ENCRYPT_V0:\nxyz\n")
    with pytest.raises(ConfigError, match="encrypted"):
        read_kind("disk:", config_file)
