"""The name of the disk that a journal is on."""

import shutil

from tunesmith.jobs import disk
from tunesmith.jobs.disk import disk_name


def test_the_name_is_the_same_as_long_as_no_row_can_be_lost(tmp_path, monkeypatch):
    folder = tmp_path / "journal"
    first = disk_name(folder, "a")
    assert disk_name(folder, "a") == first
    other = disk_name(folder, "b")
    back = disk_name(folder, "a")
    shutil.rmtree(folder)
    lost = disk_name(folder, "a")
    boot = tmp_path / "boot_id"
    boot.write_text("another start\n")
    monkeypatch.setattr(disk, "_BOOT_ID", boot)
    started = disk_name(folder, "a")
    monkeypatch.setattr(disk, "_BOOT_ID", tmp_path / "nothing")
    assert disk_name(folder, "a") == disk_name(folder, "a")
    assert len({first, other, back, lost, started, disk_name(folder, "a")}) == 6
