"""From a frame to the handler of its API, and from the handler's answer to the bytes of a response."""

import struct
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from streamcore.broker.authentication import Authentication
from streamcore.broker.counters import ApiCounters
from streamcore.broker.error_tally import tally_of
from streamcore.broker.handlers import HANDLERS
from streamcore.broker.handlers.api_versions import own_versions
from streamcore.broker.requests import Client, CloseConnectionError, Context, Peer
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.protocol.errors import MalformedMessageError, UnsupportedVersionError
from streamcore.protocol.messages import API_VERSIONS_KEY, Api
from streamcore.protocol.pieces import Buffer, Pieces
from streamcore.protocol.primitives import read_nullable_string, read_uvarint

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_HEADER = struct.Struct(">hhi")
_SIZE_AND_CORRELATION = struct.Struct(">ii")
_SIZE = struct.Struct(">i")
# A Produce request carries megabytes of records; any other that is larger than this is no client that we know, and its
# lists could take a hundred times their size in memory.
REQUEST_MAX_BYTES: Final = 8 << 20
PRODUCE_KEY: Final = 0


async def answer(
    broker: "Broker",
    frame: bytearray | memoryview,
    came_ns: int,
    peer: Peer,
    authentication: Authentication,
    client: Client,
) -> list[Buffer] | None:
    """The whole response frame, in pieces, or None where there is none.

    Args:
        came_ns: when the frame was there, by perf_counter_ns.
    Raises:
        MalformedMessageError, UnsupportedVersionError, CloseConnectionError: the connection ends.
    """
    started_ns = perf_counter_ns()
    client.requests += 1
    client.bytes_in += len(frame)
    if authentication.takes_bare_tokens:
        token = authentication.authenticate(bytes(frame)).token
        # Who has failed is told by the end of the connection: a bare token has no place for more.
        return None if authentication.failure else [bytearray(_SIZE.pack(len(token)) + token)]
    if len(frame) < _HEADER.size:
        raise MalformedMessageError(f"a request of {len(frame)} bytes is too short for a header")
    key, version, correlation_id = _HEADER.unpack_from(frame)
    found = HANDLERS.get(key)
    if found is None:
        raise UnsupportedVersionError(f"API {key} is not served")
    api, handler, first_version = found
    if not first_version <= version <= api.last_version:
        if key == API_VERSIONS_KEY:
            return _unknown_version(correlation_id)
        raise UnsupportedVersionError(f"{api.name} v{version} is not served; {first_version} to {api.last_version} are")
    if len(frame) > REQUEST_MAX_BYTES and key != PRODUCE_KEY:
        raise MalformedMessageError(f"{api.name} with {len(frame)} bytes; at most {REQUEST_MAX_BYTES} are taken")
    if (refusal := authentication.refusal(key)) is not None:
        raise CloseConnectionError(refusal)
    view = memoryview(frame)
    client_id, position = _read_header(api, version, view)
    client.client_id = client_id
    request = api.read_request(version, view, position)
    response = await handler(broker, request, Context(version, client_id, peer, authentication, client))
    out = _encoded(api, version, correlation_id, response) if response is not None else None
    counters = broker.counters.apis.get(key)
    if counters is None:
        counters = broker.counters.apis[key] = ApiCounters(api.name, tally_of(api))
    counters.requests += 1
    counters.bytes_in += len(frame)
    counters.queue_ns += started_ns - came_ns
    counters.handler_ns += perf_counter_ns() - started_ns
    if out is not None:
        size = sum(map(len, out))
        counters.bytes_out += size
        client.bytes_out += size
        counters.tally(response, counters.errors)
    return out


def _encoded(api: Api, version: int, correlation_id: int, response: Any) -> list[Buffer]:
    out = Pieces(_SIZE_AND_CORRELATION.pack(0, correlation_id))
    if api.response_header_version(version):
        out.append(0)
    api.write_response(version, response, out)
    return _framed(out)


def _framed(out: Pieces) -> list[Buffer]:
    pieces = out.finish()
    _SIZE.pack_into(pieces[0], 0, sum(map(len, pieces)) - _SIZE.size)
    return pieces


def is_produce(frame: bytearray | memoryview) -> bool:
    """Whether a frame that has been answered was a Produce request, of which nobody keeps a part: it is on disk."""
    return frame[0] == frame[1] == PRODUCE_KEY


def _read_header(api: Api, version: int, view: memoryview) -> tuple[str, int]:
    # The client id keeps its old form also where the rest of the header is flexible (KIP-482).
    client_id, position = read_nullable_string(view, _HEADER.size, len(view))
    if api.request_header_version(version) >= 2:
        count, position = read_uvarint(view, position, len(view))
        for _ in range(count):
            _, position = read_uvarint(view, position, len(view))
            size, position = read_uvarint(view, position, len(view))
            position += size
            if position > len(view):
                raise MalformedMessageError("a header ends in the middle of a field")
    return client_id or "", position


def _unknown_version(correlation_id: int) -> list[Buffer]:
    """What a client that speaks a newer ApiVersions than we do can read, to try again with an older one (KIP-511)."""
    response = messages.ApiVersions.Response(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=own_versions())
    out = Pieces(_SIZE_AND_CORRELATION.pack(0, correlation_id))
    messages.ApiVersions.write_response(0, response, out)
    return _framed(out)
