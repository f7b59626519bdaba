"""Off-load in a running daemon: what arrives, what is published, what the keys of [offload] do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from config_text import camera, configuration, microphone
from console import Console
from daemon import DaemonFor, DaemonProcess
from dbusservice import Service, real_bus
from ports import free_port
from s3server import KEYS, VERSITYGW, StandIn, versitygw
from waiting import until

from msrecd.config import InvalidConfigError, load


def keys_file(folder: Path) -> Path:
    file = folder / "credentials"
    file.write_text(f"[default]\naws_access_key_id = {KEYS.access_key}\naws_secret_access_key = {KEYS.secret_key}\n")
    file.chmod(0o600)
    return file


def offload(folder: Path, endpoint: str, more: str = "") -> str:
    return f"""
[offload]
kind = "s3"
endpoint = "{endpoint}"
bucket = "bucket"
prefix = "pi-7f3a/"
credentials_file = "{keys_file(folder)}"
{more}
"""


def msrecd(daemon: DaemonProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msrecd", *words, "--config", str(daemon.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def stored(server: StandIn) -> dict[str, bytes]:
    with server.lock:
        return {key: data for key, data in server.objects.items() if not key.rpartition(".")[2].isdigit()}


@pytest.mark.promise("offload-in-a-daemon")
@pytest.mark.effect(
    "config: offload.kind", "config: offload.endpoint", "config: offload.bucket", "config: offload.prefix"
)
@pytest.mark.effect("config: offload.credentials_file")
@pytest.mark.effect(
    "event-recorder: proof",
    "manifest-line: offloaded",
    "manifest-line: proof",
    "state-health: offload",
    "state-health: sent_files",
)
@pytest.mark.effect("event-recorder: store", "manifest-line: lines", "manifest-line: store")
def test_chunks_and_snapshots_arrive_and_are_told(daemon_for: DaemonFor, console: Console, tmp_path: Path) -> None:
    recorder = camera(chunk_duration="1s", autostart=True, snapshots={"every": "1s"})
    with StandIn() as server, daemon_for(recorder + offload(tmp_path, server.endpoint)) as daemon:
        until(lambda: len(stored(server)) >= 4, lambda: daemon.log.read_text())
        event = console.wait_event("offload", proof="put", snapshot=None)
        assert event["store"] == f"{server.endpoint.removeprefix('http://')}/bucket"
        until(lambda: any(key.endswith(".jpg") for key in stored(server)), "no snapshot arrives")
        until(
            lambda: console.command("daemon/health")["data"]["offload"]["sent_files"] >= 4,
            lambda: daemon.log.read_text(),
        )
        assert console.command("daemon/health")["data"]["offload"]["deleted_unproven"] == 0
        console.command("recorder/cam0/stop")
        daemon.wait_for_chunks(1)
        everything = {
            path.relative_to(daemon.recordings).as_posix()
            for path in daemon.recordings.rglob("*")
            if path.suffix in (".mp4", ".jpg")
        }
        until(lambda: {f"pi-7f3a/{file}" for file in everything} <= set(stored(server)), "not all arrives")
        until(
            lambda: console.command("daemon/health")["data"]["offload"]["state"] == "idle",
            lambda: daemon.log.read_text(),
        )
        for file in everything:
            assert stored(server)[f"pi-7f3a/{file}"] == (daemon.recordings / file).read_bytes()
        proven = msrecd(daemon, "recordings", "verify", "--store", "--json")
        assert json.loads(proven.stdout)["proven"], proven.stdout
        assert msrecd(daemon, "recordings", "verify").returncode == 0
        listed = json.loads(msrecd(daemon, "recordings", "list", "--json").stdout)
        entries = listed["recordings"] if isinstance(listed, dict) else listed
        chunk = next(one for entry in entries for one in entry["chunks"] if one["seq"] == event["seq"])
        assert chunk["offloaded"]["proof"] == "put"
        proofs = [line for line in daemon.manifest() if "offloaded" in line and line.get("kind") != "snapshot"]
        assert [line["lines"] for line in proofs] == sorted({line["lines"] for line in proofs})
        assert proofs[0]["lines"] >= 1
        assert {line["store"] for line in proofs} == {event["store"]}
        assert chunk["file"] == event["file"]
    text = daemon.log.read_text() + daemon.config.read_text() + json.dumps(console.messages, default=str)
    assert KEYS.secret_key not in text


def test_a_daemon_that_is_killed_goes_on_where_it_was(daemon_for: DaemonFor, tmp_path: Path) -> None:
    """With the real server, where it is installed: all is there once, bit-exact, and the store alone proves it."""
    if not Path(VERSITYGW).exists():
        pytest.skip("versitygw is not installed: scripts/setup.sh --tests builds it where there is Go")
    port = free_port()
    daemon = daemon_for(camera(chunk_duration="1s", autostart=True) + offload(tmp_path, f"http://127.0.0.1:{port}"))
    bucket = tmp_path / "gateway/bucket/pi-7f3a"

    def arrived() -> set[str]:
        return {path.relative_to(bucket).as_posix() for path in bucket.rglob("*.mp4")}

    with versitygw(tmp_path / "gateway", port):
        daemon.start()
        until(lambda: len(arrived()) >= 2, lambda: daemon.log.read_text())
        daemon.kill()
    daemon.start()  # the store is away now
    daemon.wait_for_chunks(len(arrived()) + 2)
    daemon.stop()
    daemon.config.write_text(daemon.config.read_text().replace("autostart = true", "autostart = false"))
    with versitygw(tmp_path / "gateway", port), daemon:
        there = {path.relative_to(daemon.recordings).as_posix() for path in daemon.chunks()}
        until(lambda: arrived() == there, lambda: daemon.log.read_text())
        for file in there:
            assert (bucket / file).read_bytes() == (daemon.recordings / file).read_bytes()
        until(
            lambda: (
                json.loads(msrecd(daemon, "recordings", "verify", "--store", "--json").stdout)["chunks"] == len(there)
            ),
            lambda: daemon.log.read_text(),
        )
        assert msrecd(daemon, "recordings", "verify", "--store").returncode == 0


@pytest.mark.effect("config: offload.remote", "config: offload.config_file")
def test_rclone_takes_what_is_recorded(daemon_for: DaemonFor, console: Console, tmp_path: Path) -> None:
    """Into a folder; `delete = "proven"` lets go what has arrived, and the folder alone proves it."""
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed: scripts/setup.sh --tests does")
    config_file = tmp_path / "rclone.conf"
    config_file.write_text("[nas]\ntype = local\n")
    config_file.chmod(0o600)
    more = f"""
[offload]
kind = "rclone"
remote = "nas:{tmp_path}/nas"
config_file = "{config_file}"
prefix = "pi-7f3a/"
delete = "proven"
"""
    recorder = microphone(mime_type="audio/wav", chunk_duration="1s", autostart=True)
    with daemon_for(recorder + more, storage='max_total = "1MiB"') as daemon:
        event = console.wait_event("offload", recorder="mic0", proof="sha256")
        assert event["store"] == f"rclone:nas:{tmp_path}/nas"
        first = daemon.recordings / event["file"]
        until(lambda: not first.exists(), lambda: daemon.log.read_text())
        assert (tmp_path / "nas/pi-7f3a" / event["file"]).exists()
        console.command("recorder/mic0/stop")
        until(
            lambda: console.command("daemon/health")["data"]["offload"]["state"] == "idle",
            lambda: daemon.log.read_text(),
        )
        proven = msrecd(daemon, "recordings", "verify", "--store", "--json")
        assert json.loads(proven.stdout)["proven"], proven.stdout + proven.stderr


@pytest.mark.effect("config: offload.ca_file", "config: offload.region")
def test_tls_with_an_authority_of_its_own(daemon_for: DaemonFor, console: Console, tmp_path: Path) -> None:
    """Without `ca_file` the store is not believed, and nothing is sent; with it files go, signed for `region`."""
    key, certificate = tmp_path / "store.key", tmp_path / "store.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=store"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + certificate.read_text())
    recorder = camera(chunk_duration="1s", autostart=True)
    with StandIn(certificate=both) as server:
        more = f'region = "eu-central-1"\nca_file = "{certificate}"'
        with daemon_for(recorder + offload(tmp_path, server.endpoint, more)) as daemon:
            until(lambda: len(stored(server)) >= 1, lambda: daemon.log.read_text())
            assert server.regions == {"eu-central-1"}
        there = len(stored(server))
        daemon.config.write_text(daemon.config.read_text().replace(f'ca_file = "{certificate}"', ""))
        with daemon:
            error = console.wait("event/error", lambda event: "certificate" in event["message"])
            assert error["message"].startswith("off-load: the store's certificate is not trusted")
            assert "offload.ca_file" in error["message"]
        assert len(stored(server)) == there


@pytest.mark.effect("config: offload.windows")
@pytest.mark.effect("state-health: backlog_files", "state-health: state")
def test_a_window_that_is_closed_and_a_store_that_refuses(
    daemon_for: DaemonFor, console: Console, tmp_path: Path
) -> None:
    now = datetime.now()  # noqa: DTZ005  # windows are local time
    later, end = ((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (2, 3))
    with StandIn() as server:
        windowed = offload(tmp_path, server.endpoint, f'windows = ["{later}-{end}"]')
        with daemon_for(camera(chunk_duration="1s", autostart=True) + windowed) as daemon:
            daemon.wait_for_chunks(2)
            until(
                lambda: console.command("daemon/health")["data"]["offload"]["backlog_files"] >= 2,
                lambda: daemon.log.read_text(),
            )
            health = console.command("daemon/health")["data"]["offload"]
            assert (health["state"], health["sent_files"], server.requests) == ("closed", 0, 0)
            assert health["oldest"] is not None
        text = daemon.config.read_text().replace(f'windows = ["{later}-{end}"]', "")
        daemon.config.write_text(text.replace('bucket = "bucket"', 'bucket = "other"'))
        with daemon:
            error = console.wait("event/error", lambda event: "NoSuchBucket" in event["message"])
            assert error["message"].startswith("off-load: PUT ")
            until(
                lambda: console.command("daemon/health")["data"]["offload"]["state"] == "failing",
                lambda: daemon.log.read_text(),
            )


@pytest.mark.promise("metered-links")
@pytest.mark.effect("config: offload.metered")
def test_a_metered_link_is_spared_until_it_is_none(daemon_for: DaemonFor, console: Console, tmp_path: Path) -> None:
    """A stand-in for NetworkManager, with its name, path and property, on a bus where the system's is looked for."""

    def state() -> dict[str, Any]:
        health: dict[str, Any] = console.command("daemon/health")["data"]["offload"]
        return health

    name, path = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
    recorder = camera(chunk_duration="1s", autostart=True)
    with StandIn() as server, real_bus(tmp_path) as bus, Service(bus, name, path, {"Metered": (b"u", 1)}) as manager:
        environment = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}"}
        pausing = recorder + offload(tmp_path, server.endpoint, 'metered = "pause"')
        with daemon_for(pausing, environment=environment) as daemon:
            daemon.wait_for_chunks(2)
            until(lambda: state()["backlog_files"] >= 2, lambda: daemon.log.read_text())
            assert (state()["state"], state()["sent_files"], server.requests) == ("metered", 0, 0)
            manager.properties["Metered"] = (b"u", 4)
            until(lambda: state()["sent_files"] >= 2, lambda: daemon.log.read_text())
            manager.properties["Metered"] = (b"u", 3)  # the cable is pulled; a phone is what is left
            until(lambda: state()["state"] == "metered", lambda: daemon.log.read_text())
            sent = server.requests
            there = len(daemon.chunks())
            daemon.wait_for_chunks(there + 2)
            assert (state()["state"], server.requests) == ("metered", sent)
            manager.close()  # no NetworkManager, no metered link: once the last answer is a minute old
            until(lambda: server.requests > sent, lambda: daemon.log.read_text(), timeout=150)
            assert daemon.log.read_text().count("NetworkManager does not say") == 1
            daemon.config.write_text(daemon.config.read_text().replace('metered = "pause"', ""))
        with Service(bus, name, path, {"Metered": (b"u", 1)}) as again, daemon:
            sent = server.requests
            until(lambda: server.requests > sent, "without the key a metered link changes nothing")
            assert again.asked == 0


@pytest.mark.effect("config: offload.max_rate")
def test_max_rate_holds(daemon_for: DaemonFor, tmp_path: Path) -> None:
    """At 20 KiB a second a chunk of sound takes as long as that says."""
    sound = microphone(mime_type="audio/wav", chunk_duration="1s", autostart=True, max_duration="3s")
    with (
        StandIn() as server,
        daemon_for(sound + offload(tmp_path, server.endpoint, 'max_rate = "20KiB"')) as daemon,
    ):
        (first, *_) = daemon.wait_for_chunks(1, recorder="mic0")
        size, begun = first.stat().st_size, time.monotonic()
        until(lambda: len(stored(server)) >= 1, lambda: daemon.log.read_text())
        took = time.monotonic() - begun
    assert took >= 0.5 * size / 20_480, "half, for it began before this was looked at"


@pytest.mark.effect("config: offload.delete")
@pytest.mark.effect("config: storage.max_total")
@pytest.mark.promise("proven-only-is-deleted", "recipe-nas")
def test_proven_keeps_what_is_not_proven(daemon_for: DaemonFor, console: Console, tmp_path: Path) -> None:
    """The limit is reached, the store refuses: nothing is deleted, and the recorder says why it does not record."""
    limits = 'max_total = "1MiB"'
    recorder = microphone(mime_type="audio/wav", chunk_duration="1s", autostart=True)  # 188 KiB a second
    with StandIn() as server:
        server.room = 0
        made = recorder + offload(tmp_path, server.endpoint, 'delete = "proven"')
        with daemon_for(made, storage=limits) as daemon:
            state = console.wait_state("error", recorder="mic0", code="no_space", timeout=90)
            assert "wait for the store of [offload]" in state["error"]["message"]
            kept = daemon.chunks("mic0")
            assert kept[0].name.endswith("-0001.wav")
            pruned = msrecd(daemon, "recordings", "prune")  # beside the daemon it deletes no more than that would
            assert "wait for the store of [offload]" in pruned.stderr, pruned
            assert daemon.chunks("mic0")[: len(kept)] == kept
            server.room = None
            until(lambda: not kept[0].exists(), lambda: daemon.log.read_text(), timeout=90)
            assert f"pi-7f3a/{kept[0].relative_to(daemon.recordings)}" in stored(server)
            console.wait_state("recording", recorder="mic0", timeout=90)


@pytest.mark.parametrize(
    ("before", "after", "at"),
    [
        ("https://s3.example.org", "http://s3.example.org", "offload.endpoint"),
        ("https://s3.example.org", "https://user:word@s3.example.org", "offload.endpoint"),
        ("https://s3.example.org", "https://s3.example.org/bucket", "offload.endpoint"),
        ('"s3"', '"ftp"', "offload.kind"),
        ("pi-7f3a/", "/pi", "offload.prefix"),
        ('bucket = "bucket"', 'bucket = "Bucket!"', "offload.bucket"),
        ("#more", 'windows = ["22-05"]', "offload.windows[0]"),
        ("#more", 'max_rate = "10B"', "offload.max_rate"),
        ("#more", 'delete = "always"', "offload.delete"),
        ("#more", 'metered = "yes"', "offload.metered"),
    ],
)
def test_stores_that_cannot_be(tmp_path: Path, before: str, after: str, at: str) -> None:
    config = tmp_path / "msrecd.toml"
    more = offload(tmp_path, "https://s3.example.org", "#more")
    text = configuration(tmp_path, port=None, recorders=camera() + more)
    config.write_text(text)
    assert load(config).offload is not None
    config.write_text(text.replace(before, after))
    with pytest.raises(InvalidConfigError) as refused:
        load(config)
    assert [problem.path for problem in refused.value.problems] == [at]
    assert "word@" not in str(refused.value)


@pytest.mark.parametrize(
    ("table", "paths"),
    [
        ('kind = "s3"', ["offload.bucket", "offload.credentials_file", "offload.endpoint"]),
        ('kind = "rclone"', ["offload.config_file", "offload.remote"]),
        ('kind = "rclone"\nremote = "nas"\nconfig_file = "/x"', ["offload.remote"]),
        ('kind = "rclone"\nremote = "--flag:"\nconfig_file = "/x"', ["offload.remote"]),
        ('kind = "rclone"\nremote = "nas:"\nconfig_file = "/x"\nbucket = "bucket"', ["offload.bucket"]),
    ],
)
def test_each_kind_has_keys_of_its_own(tmp_path: Path, table: str, paths: list[str]) -> None:
    config = tmp_path / "msrecd.toml"
    config.write_text(configuration(tmp_path, port=None, recorders=f"{camera()}\n[offload]\n{table}\n"))
    with pytest.raises(InvalidConfigError) as refused:
        load(config)
    assert sorted(problem.path for problem in refused.value.problems) == paths
