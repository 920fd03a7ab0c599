"""FindCoordinator 0-6: this node coordinates every group and every transactional id."""

from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Find = messages.FindCoordinator
GROUP, TRANSACTION = 0, 1
_KEYS_FROM = 4  # several at once (KIP-699)


async def find_coordinator(broker: "Broker", request: Any, context: Context) -> Any:
    if context.version >= _KEYS_FROM:
        return _Find.Response(
            coordinators=[_coordinator(broker, request.key_type, key) for key in request.coordinator_keys]
        )
    found = _coordinator(broker, request.key_type, request.key)
    return _Find.Response(
        error_code=found.error_code,
        error_message=found.error_message,
        node_id=found.node_id,
        host=found.host,
        port=found.port,
    )


def _coordinator(broker: "Broker", key_type: int, key: str) -> Any:
    if key_type not in (GROUP, TRANSACTION):
        return _Find.Coordinator(
            key=key,
            node_id=-1,
            port=-1,
            error_code=ErrorCode.INVALID_REQUEST,
            error_message="groups and transactions have a coordinator here; share groups do not",
        )
    endpoint = broker.endpoint
    return _Find.Coordinator(
        key=key, node_id=broker.config.node_id, host=endpoint.host, port=endpoint.port, error_message=None
    )


HANDLERS = {_Find: find_coordinator}
