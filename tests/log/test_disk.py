"""The disks do the same things; the faulty one forgets, which is shown here too."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from streamcore.log.disk import Disk, HeldError, RealDisk, read_file, replace_file
from streamcore.log.memory_disk import MemoryDisk
from streamcore.log.open_files import OpenFiles
from tests.faults.faulty_disk import FaultyDisk, Killed

DISKS: dict[str, Callable[[], Disk]] = {"real": RealDisk, "memory": MemoryDisk, "faulty": FaultyDisk}


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest) -> Disk:
    return DISKS[request.param]()


@pytest.fixture
def root(disk: Disk, tmp_path: Path) -> str:
    disk.make_directory(f"{tmp_path}/a")
    return f"{tmp_path}/a"


def test_bytes_are_read_where_they_were_written(disk: Disk, root: str) -> None:
    file = disk.open(f"{root}/f", create=True)
    file.write_at(0, b"hello world")
    file.write_at(6, bytearray(b"there"))
    file.write_at(13, memoryview(b"!"))
    assert disk.open(f"{root}/f").read_at(0, 100) == b"hello there\x00\x00!"
    assert file.read_at(6, 5) == b"there"
    assert file.read_at(14, 5) == b""
    file.truncate(5)
    assert (file.size(), disk.size(f"{root}/f")) == (5, 5)
    file.truncate(7)
    assert file.read_at(0, 10) == b"hello\x00\x00"
    file.sync()
    file.close()


def test_names_are_listed_renamed_and_removed(disk: Disk, root: str) -> None:
    for name in ("c", "b"):
        disk.open(f"{root}/{name}", create=True).close()
    disk.make_directory(f"{root}/d")
    assert disk.list_directory(root) == ["b", "c", "d"]
    disk.rename(f"{root}/b", f"{root}/c")
    disk.open(f"{root}/d/x", create=True).close()
    disk.rename(f"{root}/d", f"{root}/e")
    assert disk.list_directory(root) == ["c", "e"]
    assert disk.list_directory(f"{root}/e") == ["x"]
    assert disk.exists(f"{root}/e")
    assert not disk.exists(f"{root}/d")
    with pytest.raises(OSError, match="not empty"):
        disk.remove_directory(f"{root}/e")
    disk.remove(f"{root}/e/x")
    disk.remove_directory(f"{root}/e")
    disk.sync_directory(root)
    assert disk.list_directory(root) == ["c"]


def test_what_is_not_there_is_a_file_not_found(disk: Disk, root: str) -> None:
    for call in (
        lambda: disk.open(f"{root}/f"),
        lambda: disk.open(f"{root}/no/f", create=True),
        lambda: disk.size(f"{root}/f"),
        lambda: disk.remove(f"{root}/f"),
        lambda: disk.rename(f"{root}/f", f"{root}/g"),
        lambda: disk.list_directory(f"{root}/no"),
    ):
        with pytest.raises(FileNotFoundError):
            call()


def test_a_lock_is_one_holders_until_it_is_released(disk: Disk, root: str) -> None:
    lock = disk.lock(f"{root}/.lock", b"first")
    with pytest.raises(HeldError) as raised:
        disk.lock(f"{root}/.lock", b"second")
    assert raised.value.holder == b"first"
    lock.release()
    disk.lock(f"{root}/.lock", b"second").release()


def test_a_file_is_replaced_whole(disk: Disk, root: str) -> None:
    replace_file(disk, f"{root}/f", b"a long first text")
    replace_file(disk, f"{root}/f", b"second")
    assert read_file(disk, f"{root}/f") == b"second"
    assert disk.list_directory(root) == ["f"]


def test_a_file_that_is_replaced_is_old_or_new_after_a_death_at_every_step() -> None:
    outcomes = set()
    for seed in range(300):
        disk = FaultyDisk(seed)
        disk.make_directory("/a")
        replace_file(disk, "/a/f", b"old")
        disk.kill_after(seed % 7)
        try:
            replace_file(disk, "/a/f", b"something new")
        except Killed:
            pass
        disk.lose_power()
        outcomes.add(read_file(disk, "/a/f"))
    assert outcomes == {b"old", b"something new"}


def test_the_faulty_disk_forgets_what_was_not_synced() -> None:
    lengths = set()
    for seed in range(50):
        disk = FaultyDisk(seed)
        disk.make_directory("/a")
        file = disk.open("/a/f", create=True)
        disk.sync_directory("/a")
        file.write_at(0, b"synced")
        file.sync()
        file.write_at(6, b" and not synced")
        disk.lose_power()
        data = read_file(disk, "/a/f")
        assert data.startswith(b"synced")
        lengths.add(len(data))
    assert len(lengths) > 5


def test_the_faulty_disk_forgets_names_of_a_directory_that_was_not_synced() -> None:
    found = set()
    for seed in range(20):
        disk = FaultyDisk(seed)
        disk.make_directory("/a")
        file = disk.open("/a/f", create=True)
        file.sync()
        disk.lose_power()
        found.add(disk.exists("/a/f"))
    assert found == {True, False}


def test_the_faulty_disk_runs_full_in_the_middle_of_a_write() -> None:
    disk = FaultyDisk()
    disk.make_directory("/a")
    file = disk.open("/a/f", create=True)
    disk.room = 4
    with pytest.raises(OSError, match="No space left") as raised:
        file.write_at(0, b"hello world")
    assert raised.value.errno == errno.ENOSPC
    assert read_file(disk, "/a/f") == b"hell"


def test_open_files_are_bounded_and_closed(tmp_path: Path) -> None:
    files = OpenFiles(RealDisk(), limit=3)
    for number in range(10):
        files.get(f"{tmp_path}/{number}", create=True).write_at(0, b"%d" % number)
    assert len(files) == 3
    for number in range(10):
        assert files.get(f"{tmp_path}/{number}").read_at(0, 5) == b"%d" % number
    files.forget(f"{tmp_path}/9")
    files.forget_directory(str(tmp_path))
    assert len(files) == 0
    files.get(f"{tmp_path}/1")
    files.close()
    assert len(files) == 0
