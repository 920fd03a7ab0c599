"""DescribeClientQuotas 0-1 (KIP-546): nobody has a quota. Kafka's tools ask for them before they show a user."""

from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.protocol import messages

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Describe = messages.DescribeClientQuotas


async def describe_client_quotas(broker: "Broker", request: Any, context: Context) -> Any:
    return _Describe.Response(error_message=None, entries=[])


HANDLERS = {_Describe: describe_client_quotas}
