from hypothesis import given
from hypothesis import strategies as st

from streamcore.protocol import messages
from streamcore.protocol.pieces import APART_MIN_BYTES, Pieces

Fetch = messages.Fetch
SIZES = st.sampled_from([0, 1, 100, APART_MIN_BYTES - 1, APART_MIN_BYTES, 3 * APART_MIN_BYTES])


@given(st.lists(st.lists(SIZES, max_size=4), max_size=3), st.integers(Fetch.first_version, Fetch.last_version))
def test_a_message_in_pieces_is_the_message_in_one(topics: list[list[int]], version: int) -> None:
    response = Fetch.Response(
        responses=[
            Fetch.FetchableTopicResponse(
                topic="t",
                partitions=[
                    Fetch.PartitionData(partition_index=index, records=bytes([index + 1]) * size)
                    for index, size in enumerate(sizes)
                ],
            )
            for sizes in topics
        ]
    )
    whole, pieces = bytearray(b"head"), Pieces(b"head")
    Fetch.write_response(version, response, whole)
    Fetch.write_response(version, response, pieces)
    finished = pieces.finish()
    assert b"".join(finished) == whole
    assert isinstance(finished[0], bytearray)
    large = sum(size >= APART_MIN_BYTES for sizes in topics for size in sizes)
    assert len(finished) == (1 + 2 * large)


def test_large_records_are_not_copied() -> None:
    records = bytes(APART_MIN_BYTES)
    pieces = Pieces()
    partition = Fetch.PartitionData(records=records)
    topic = Fetch.FetchableTopicResponse(topic="t", partitions=[partition])
    Fetch.write_response(4, Fetch.Response(responses=[topic]), pieces)
    assert any(piece is records for piece in pieces.finish())
