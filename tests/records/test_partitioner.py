"""Keys go where Kafka's clients send them."""

import itertools
from collections import Counter

import pytest
from aiokafka.partitioner import murmur2 as aiokafkas_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streamcore.records.partitioner import StickyPartitioner, murmur2, partition_for

# Of Kafka's own UtilsTest, computed by the Java client.
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}

# What librdkafka 2.16.0's murmur2 partitioner answers for 8 partitions.
LIBRDKAFKA_VECTORS = [
    (b"", 1),
    (b"a", 4),
    (b"ab", 2),
    (b"abc", 3),
    (b"abcd", 4),
    (b"web-01", 3),
    (b"web-02", 6),
    (b"db-1.example.org", 2),
    (bytes(range(256)), 6),
    ("größe".encode(), 4),
    (b"\x00\x00\x00\x00\x00", 7),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 5),
]


@pytest.mark.parametrize(("key", "hashed"), JAVA_VECTORS.items())
def test_murmur2_is_the_java_clients(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed


@given(st.binary(max_size=64))
def test_murmur2_agrees_with_another_client(key: bytes) -> None:
    assert murmur2(key) & 0xFFFFFFFF == aiokafkas_murmur2(key) & 0xFFFFFFFF


@pytest.mark.parametrize(("key", "partition"), LIBRDKAFKA_VECTORS)
def test_a_key_goes_where_librdkafka_sends_it(key: bytes, partition: int) -> None:
    assert partition_for(key, 8) == partition


@given(st.binary(max_size=64), st.integers(1, 1000))
def test_a_key_always_goes_to_the_same_partition_of_the_topic(key: bytes, partitions: int) -> None:
    assert partition_for(key, partitions) == partition_for(bytes(key), partitions)
    assert 0 <= partition_for(key, partitions) < partitions


def test_records_without_a_key_stay_together_until_a_batch_is_full() -> None:
    partitioner = StickyPartitioner(8, sticky_bytes=1000, seed=1)
    chosen = [partitioner.partition(100) for _ in range(40)]
    runs = [chosen[start : start + 10] for start in range(0, 40, 10)]
    assert all(len(set(run)) == 1 for run in runs)
    assert all(earlier[0] != later[0] for earlier, later in itertools.pairwise(runs))


def test_records_without_a_key_reach_every_partition_alike() -> None:
    partitioner = StickyPartitioner(4, sticky_bytes=100, seed=1)
    counts = Counter(partitioner.partition(100) for _ in range(4000))
    assert len(counts) == 4
    assert min(counts.values()) > 800


def test_one_partition_is_enough() -> None:
    partitioner = StickyPartitioner(1, sticky_bytes=1)
    assert {partitioner.partition(100) for _ in range(10)} == {0}
