"""What a storage's mount is judged by."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrecd.storage.checks import Mount, check, is_mount_point, judge, mount_of, parse_mountinfo

TABLE = r"""22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
23 22 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=10k
41 22 8:1 / /media/my\040disk rw,relatime shared:3 master:4 - vfat /dev/sda1 rw,fmask=0022
42 22 8:2 / /media/ssd rw,relatime - ext4 /dev/sda2 rw,data=writeback
43 42 0:44 / /media/ssd rw,relatime - tmpfs tmpfs rw
44 22 8:3 / /media/locked ro,relatime - ext4 /dev/sda3 rw
no mount at all
"""


@pytest.mark.parametrize(
    ("path", "point", "codes"),
    [
        ("/media/my disk/recordings", "/media/my disk", ["fat_limit"]),
        ("/media/my diskette", "/", ["root_file_system"]),
        ("/media/ssd/x", "/media/ssd", ["volatile"]),  # the tmpfs hides the disk below
        ("/media/locked", "/media/locked", ["read_only"]),
        ("/var/lib/msrecd", "/", ["root_file_system"]),
    ],
)
@pytest.mark.promise("fat-limit-is-said")
def test_the_mount_of_a_path_is_found_and_judged(path: str, point: str, codes: list[str]) -> None:
    mount = mount_of(Path(path), parse_mountinfo(TABLE))
    assert mount is not None
    assert mount.point == point
    assert [finding.code for finding in judge(mount)] == codes


def test_data_writeback_is_reported_with_its_place() -> None:
    options = frozenset({"rw", "data=writeback"})
    (finding,) = judge(Mount(point="/media/ssd", kind="ext4", options=options, source="/dev/sda2"))
    assert finding.code == "writeback"
    assert "/media/ssd" in finding.message


def test_a_table_that_says_nothing_finds_nothing() -> None:
    assert parse_mountinfo("") == []
    assert judge(mount_of(Path("/srv"), [])) == []


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    assert {finding.code for finding in check(tmp_path)} <= {"root_file_system", "volatile", "read_only", "writeback"}
    assert not is_mount_point(Path("/"))
    assert not is_mount_point(tmp_path / "missing")
    assert is_mount_point(Path("/proc"))
