import json
import logging

import pytest

from streamcore.broker.metadata_store import LocalMetadataStore, RevisionMismatchError
from streamcore.log.disk import read_file, replace_file
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
