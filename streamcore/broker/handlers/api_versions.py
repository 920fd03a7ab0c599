"""ApiVersions 0-4 (KIP-35, KIP-511): what this broker serves, and nothing else.

A version that is not known is answered in the layout of version 0, so that a newer client finds out. Produce is
advertised from version 0 though it is served from 3: librdkafka takes a missing version 0 for a broker without
compression (KAFKA-18659). Clients take from the features which protocols they may follow (KIP-584).
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from streamcore.broker.requests import Context, Handler
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from streamcore.protocol.messages import Api

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_ApiVersions = messages.ApiVersions


class _Feature(NamedTuple):
    """Something of a cluster as a whole that has versions."""

    first_version: int
    last_version: int
    version: int  # that is in force


# They come with the program and are the same as long as it runs, so their epoch stays as well.
_FEATURES: Final[Mapping[str, _Feature]] = {
    "group.version": _Feature(0, 1, 1),  # consumer groups (KIP-848)
    "transaction.version": _Feature(0, 2, 2),  # a new epoch with every end (KIP-890)
}
_FEATURES_EPOCH: Final = 0
_ZERO_FROM = 4  # before, clients cannot read a feature whose least version is 0, and are told 1 (KAFKA-17011)
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
_served: list[Any] = []
_finalized = [
    _ApiVersions.FinalizedFeatureKey(name=name, max_version_level=feature.version, min_version_level=feature.version)
    for name, feature in _FEATURES.items()
]


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
    least = 0 if context.version >= _ZERO_FROM else 1
    response = _ApiVersions.Response(
        api_keys=_served,
        supported_features=[
            _ApiVersions.SupportedFeatureKey(
                name=name, min_version=max(feature.first_version, least), max_version=feature.last_version
            )
            for name, feature in _FEATURES.items()
        ],
        finalized_features_epoch=_FEATURES_EPOCH,
        finalized_features=_finalized,
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
