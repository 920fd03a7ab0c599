import json
import logging
import stat
from pathlib import Path

import pytest

from streamcore.broker.metadata_store import LocalMetadataStore, RevisionMismatchError
from streamcore.log.disk import RealDisk, read_file, replace_file
from streamcore.log.memory_disk import MemoryDisk


def a_disk() -> MemoryDisk:
    disk = MemoryDisk()
    disk.make_directory("/data")
    return disk


def test_what_is_put_is_there_after_a_restart_and_only_its_revision_replaces_it() -> None:
    disk = a_disk()
    store = LocalMetadataStore(disk, "/data")
    assert store.get("a") == (None, 0)
    assert store.put("a", {"b": 1}, 0) == 1
    with pytest.raises(RevisionMismatchError, match="a has another revision than 0"):
        store.put("a", 2, 0)
    again = LocalMetadataStore(disk, "/data")
    assert again.get("a") == ({"b": 1}, 1)
    assert again.put("a", 2, 1) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": {"value": 1}}', b"\xff"])
def test_a_damaged_file_is_set_aside_and_said(damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    disk = a_disk()
    replace_file(disk, "/data/cluster.json", damage)
    with caplog.at_level(logging.ERROR):
        store = LocalMetadataStore(disk, "/data")
    assert "set aside as .damaged" in caplog.text
    assert store.get("a") == (None, 0)
    store.put("a", 1, 0)
    assert bytes(read_file(disk, "/data/cluster.json.damaged")) == damage
    assert json.loads(read_file(disk, "/data/cluster.json")) == {"a": {"value": 1, "revision": 1}}


def test_the_keys_of_users_are_for_the_eyes_of_the_owner_only(tmp_path: Path) -> None:
    for name in ("cluster.json", "cluster.json.tmp"):  # what an earlier version has left
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(0o644)
    LocalMetadataStore(RealDisk(), str(tmp_path)).put("users", {"alice": "key"}, 0)
    assert stat.S_IMODE((tmp_path / "cluster.json").stat().st_mode) == 0o600
