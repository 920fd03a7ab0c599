"""ApiVersions 0-4 (KIP-35, KIP-511): what this broker serves, and nothing else.

A version that is not known is answered in the layout of version 0, so that a newer client finds out. Produce is
advertised from version 0 though it is served from 3: librdkafka takes a missing version 0 for a broker without
compression (KAFKA-18659). A client speaks transaction version 2 where the feature is finalized as such (KIP-890).
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from streamcore.broker.requests import Context, Handler
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.protocol.messages import Api

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_ApiVersions = messages.ApiVersions
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_served: list[Any] = []
# Name, and the versions that are supported; the last one is in force (KIP-584).
FEATURES: Final = (("transaction.version", 0, 2),)
_FEATURES_EPOCH: Final = 0  # they have never been changed
# Before, a client refuses an answer with a feature that may be at version 0 (KIP-1022).
_ZERO_FROM: Final = 4


def advertise(handlers: Mapping[int, tuple[Api, Handler, int]]) -> None:
    """Say once what is served."""
    _served[:] = [
        _ApiVersions.ApiVersion(
            api_key=key, min_version=0 if key == messages.Produce.key else first, max_version=api.last_version
        )
        for key, (api, _, first) in sorted(handlers.items())
    ]


def own_versions() -> list[Any]:
    """What a client needs to ask again: the versions of this request."""
    return [entry for entry in _served if entry.api_key == _ApiVersions.key]


async def api_versions(broker: "Broker", request: Any, context: Context) -> Any:
    response = _ApiVersions.Response(
        api_keys=_served,
        supported_features=[
            _ApiVersions.SupportedFeatureKey(name=name, min_version=first, max_version=last)
            for name, first, last in FEATURES
            if first or context.version >= _ZERO_FROM
        ],
        finalized_features_epoch=_FEATURES_EPOCH,
        finalized_features=[
            _ApiVersions.FinalizedFeatureKey(name=name, min_version_level=last, max_version_level=last)
            for name, _, last in FEATURES
        ],
    )
    if context.version >= 3 and not (
        _SOFTWARE.fullmatch(request.client_software_name) and _SOFTWARE.fullmatch(request.client_software_version)
    ):
        response.error_code = ErrorCode.INVALID_REQUEST
        response.api_keys = []
    elif context.version >= 3 and context.client is not None:
        context.client.software_name = request.client_software_name
        context.client.software_version = request.client_software_version
    return response


HANDLERS = {_ApiVersions: api_versions}
