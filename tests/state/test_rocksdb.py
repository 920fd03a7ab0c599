"""RocksDB as a table store."""

from pathlib import Path

from streamcore.state.rocksdb import RocksStore
from streamcore.state.store import META


def test_a_scan_between_bounds_gives_every_row_between_them_whatever_happens_to_the_bounds(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path))
    store.write([(META, b"%b:%02d" % (kind, number), b"") for kind in (b"a", b"run", b"z") for number in range(20)])
    for _ in range(100):
        rows = store.scan(META, b"run:", "run:\U0010ffff".encode())
        other_objects = [b"%c" % (65 + size) * size for size in range(1, 60)]
        assert [key for key, _ in rows] == [b"run:%02d" % number for number in range(20)]
        assert len(other_objects) == 59
    store.close()


def test_a_scan_sees_what_was_there_when_it_was_asked_for(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path))
    store.write([(META, b"a", b"1"), (META, b"b", b"1")])
    rows = store.scan(META, b"", b"z")
    store.write([(META, b"a", b"2"), (META, b"b", None), (META, b"c", b"2")])
    assert list(rows) == [(b"a", b"1"), (b"b", b"1")]
    store.close()
