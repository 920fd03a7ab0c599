"""InitProducerId 0-5: an id for an idempotent producer (KIP-98). Left out: transactions."""

import logging
from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

logger = logging.getLogger(__name__)

_Init = messages.InitProducerId


async def init_producer_id(broker: "Broker", request: Any, context: Context) -> Any:
    if request.transactional_id == "":
        return _Init.Response(error_code=ErrorCode.INVALID_REQUEST, producer_id=-1, producer_epoch=-1)
    if request.transactional_id is not None:
        if not 0 < request.transaction_timeout_ms <= broker.config.transaction_max_timeout_ms:
            code = ErrorCode.INVALID_TRANSACTION_TIMEOUT
            return _Init.Response(error_code=code, producer_id=-1, producer_epoch=-1)
        # Not an error to try again after: there is no coordinator of transactions here.
        return _Init.Response(
            error_code=ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, producer_id=-1, producer_epoch=-1
        )
    try:
        return _Init.Response(producer_id=broker.new_producer_id(), producer_epoch=0)
    except OSError as error:
        logger.error("no producer id can be given out: %s", error)
        return _Init.Response(error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE, producer_id=-1, producer_epoch=-1)


HANDLERS = {_Init: init_producer_id}
