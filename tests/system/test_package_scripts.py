"""What the package's scripts do to the machine, in a folder that stands for `/`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

DEBIAN = Path(__file__).resolve().parents[2] / "debian"


def run_script(name: str, root: Path, *arguments: str) -> None:
    text = (DEBIAN / name).read_text().replace("install -m 640 -o root -g msrecd", "install -m 640")
    for folder in ("/var/", "/etc/", "/usr/"):
        text = text.replace(f" {folder}", f" {root}{folder}")
    script = root / name
    script.write_text(text)
    subprocess.run(["sh", str(script), *arguments], check=True, timeout=30)


def put(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)


@pytest.mark.promise("purge-leaves-the-recordings")
@pytest.mark.parametrize("action", ["remove", "purge"])
def test_removing_and_purging_leave_the_recordings(tmp_path: Path, action: str) -> None:
    own = ("var/lib/msrecd/recordings/cam0/2026/05/01/x-0001.mp4", "var/lib/msrecd/usb/cam0/2026/05/01/x-0001.mp4")
    put(tmp_path, *own, "var/lib/msrecd/recordings/.msrecd/medium.json", "var/lib/msrecd/state/boot.json")
    put(tmp_path, "etc/msrecd/conf.d/mine.toml", "etc/msrecd/msrecd.toml")
    run_script("msrecd.postrm", tmp_path, action)
    assert all((tmp_path / file).read_text() == file for file in own)
    assert (tmp_path / "var/lib/msrecd/recordings/.msrecd/medium.json").exists(), "what is known of them stays as well"
    assert (tmp_path / "etc/msrecd/conf.d/mine.toml").exists()
    assert (tmp_path / "var/lib/msrecd/state").exists() is (action == "remove")


@pytest.mark.promise("upgrade-leaves-the-configuration")
def test_no_upgrade_touches_the_configuration(tmp_path: Path) -> None:
    put(tmp_path, "usr/share/msrecd/msrecd.toml")
    config = tmp_path / "etc/msrecd/msrecd.toml"
    config.parent.mkdir(parents=True)
    run_script("msrecd.postinst", tmp_path, "configure", "")
    assert config.read_text() == "usr/share/msrecd/msrecd.toml"
    config.write_text("mine")
    run_script("msrecd.postinst", tmp_path, "configure", "0.0.9")
    assert config.read_text() == "mine"
    config.unlink()
    run_script("msrecd.postinst", tmp_path, "configure", "0.0.9")
    assert not config.exists(), "who took it away wanted that"
