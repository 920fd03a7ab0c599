"""InitProducerId 0-5: an id for an idempotent producer (KIP-98), or a transactional one (KIP-360)."""

import logging
from typing import TYPE_CHECKING, Any

from streamcore.broker.coordinator.transaction import NO_ID, TransactionRefusedError
from streamcore.broker.requests import Context
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

logger = logging.getLogger(__name__)

_Init = messages.InitProducerId
_FENCED_FROM = 4  # before, a client knows PRODUCER_FENCED by the name of INVALID_PRODUCER_EPOCH (KIP-588)


async def init_producer_id(broker: "Broker", request: Any, context: Context) -> Any:
    if request.transactional_id is not None:
        return await _transactional(broker, request, context)
    try:
        return _Init.Response(producer_id=broker.new_producer_id(), producer_epoch=0)
    except OSError as error:
        logger.error("no producer id can be given out: %s", error)
        return _refused(ErrorCode.COORDINATOR_NOT_AVAILABLE)


async def _transactional(broker: "Broker", request: Any, context: Context) -> Any:
    if not request.transactional_id:
        return _refused(ErrorCode.INVALID_REQUEST)
    if not 0 < request.transaction_timeout_ms <= broker.config.transaction_max_timeout_ms:
        return _refused(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
    if (request.producer_id == NO_ID) != (request.producer_epoch == NO_ID):
        return _refused(ErrorCode.INVALID_REQUEST)
    expected = None if request.producer_id == NO_ID else (request.producer_id, request.producer_epoch)
    try:
        producer_id, epoch = await broker.transactions.initialise(
            request.transactional_id, request.transaction_timeout_ms, expected
        )
    except TransactionRefusedError as error:
        if error.error_code == ErrorCode.PRODUCER_FENCED and context.version < _FENCED_FROM:
            return _refused(ErrorCode.INVALID_PRODUCER_EPOCH)
        return _refused(error.error_code)
    return _Init.Response(producer_id=producer_id, producer_epoch=epoch)


def _refused(code: int) -> Any:
    return _Init.Response(error_code=code, producer_id=-1, producer_epoch=-1)


HANDLERS = {_Init: init_producer_id}
