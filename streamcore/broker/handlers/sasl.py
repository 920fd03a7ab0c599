"""SaslHandshake 0-1, SaslAuthenticate 0-2: a client logs in, or logs in again (KIP-43, KIP-152, KIP-368).

What fails is answered a little later, and then the connection ends (`connection.failed.authentication.delay.ms`).
"""

from typing import TYPE_CHECKING, Any

from streamcore.broker.requests import Context
from streamcore.protocol import messages

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Handshake = messages.SaslHandshake
_Authenticate = messages.SaslAuthenticate


async def sasl_handshake(broker: "Broker", request: Any, context: Context) -> Any:
    code = context.authentication.handshake(request.mechanism, context.version)
    mechanisms = broker.config.sasl_enabled_mechanisms if broker.config.has_sasl else ()
    return _Handshake.Response(error_code=code, mechanisms=list(mechanisms))


async def sasl_authenticate(broker: "Broker", request: Any, context: Context) -> Any:
    answer = context.authentication.authenticate(bytes(request.auth_bytes))
    return _Authenticate.Response(
        error_code=answer.code,
        error_message=answer.message,
        auth_bytes=answer.token,
        session_lifetime_ms=answer.session_lifetime_ms,
    )


HANDLERS = {_Handshake: sasl_handshake, _Authenticate: sasl_authenticate}
