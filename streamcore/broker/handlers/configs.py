"""DescribeConfigs 1-4, AlterConfigs 0-2, IncrementalAlterConfigs 0-1, ListConfigResources 0-1: settings with their
defaults and sources.

What changes is effective at once. Of a node's own settings those change that Kafka lets change; "" names all nodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from streamcore.broker.config import SECRETS, TOPIC_DEFAULTS
from streamcore.broker.requests import Context
from streamcore.broker.settings import (
    ALL_BROKERS,
    DYNAMIC,
    SOURCE_BROKER,
    SOURCE_DEFAULT,
    SOURCE_STATIC,
    SOURCE_TOPIC,
    Origin,
)
from streamcore.errors import InvalidConfigError, StreamcoreError
from streamcore.log.config import LogConfig
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Describe = messages.DescribeConfigs
_Alter = messages.AlterConfigs
_Incremental = messages.IncrementalAlterConfigs
_List = messages.ListConfigResources
TOPIC, BROKER = 2, 4
_BOOLEAN, _STRING, _INT, _LONG, _DOUBLE, _LIST, _PASSWORD = 1, 2, 3, 5, 6, 7, 9
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
_TOPIC_TYPES: Final[Mapping[str, int]] = {
    "cleanup.policy": _LIST,
    "compression.type": _STRING,
    "index.interval.bytes": _INT,
    "max.message.bytes": _INT,
    "message.timestamp.type": _STRING,
    "min.cleanable.dirty.ratio": _DOUBLE,
    "min.insync.replicas": _INT,
    "segment.bytes": _INT,
    "segment.index.bytes": _INT,
}
_BROKER_TYPES: Final[Mapping[str, int]] = {
    "auto.create.topics.enable": _BOOLEAN,
    "delete.topic.enable": _BOOLEAN,
    "group.consumer.assignors": _LIST,
    "group.consumer.migration.policy": _STRING,
    "log.cleaner.enable": _BOOLEAN,
    "log.cleaner.backoff.ms": _LONG,
    "log.cleaner.dedupe.buffer.size": _LONG,
    "log.retention.check.interval.ms": _LONG,
    "offsets.retention.check.interval.ms": _LONG,
    **{default: _TOPIC_TYPES.get(name, _LONG) for name, default in TOPIC_DEFAULTS.items()},
    "connections.max.idle.ms": _LONG,
    "connections.max.reauth.ms": _LONG,
    "sasl.enabled.mechanisms": _LIST,
    "security.protocol": _STRING,
    "ssl.client.auth": _STRING,
    "ssl.key.password": _PASSWORD,
    "ssl.keystore.location": _STRING,
    "ssl.keystore.type": _STRING,
    "ssl.truststore.location": _STRING,
    "ssl.truststore.type": _STRING,
}


_Settings = Mapping[str, str | None]
_Changes = dict[str, str | None]


async def describe_configs(broker: "Broker", request: Any, context: Context) -> Any:
    return _Describe.Response(results=[_described(broker, request, resource) for resource in request.resources])


def _described(broker: "Broker", request: Any, resource: Any) -> Any:
    result = _Describe.DescribeConfigsResult(
        resource_type=resource.resource_type, resource_name=resource.resource_name, error_message=""
    )
    try:
        entries = _entries(broker, resource.resource_type, resource.resource_name)
    except _RefusedError as error:
        result.error_code, result.error_message = error.error_code, str(error)
        return result
    except StreamcoreError as error:
        result.error_code, result.error_message = error.code, str(error)
        return result
    wanted = resource.configuration_keys
    result.configs = [
        _Describe.DescribeConfigsResourceResult(
            name=name,
            value=value,
            read_only=resource.resource_type == BROKER and name not in DYNAMIC,
            config_source=origins[0].source if origins else SOURCE_DEFAULT,
            is_sensitive=resource.resource_type == BROKER and name in SECRETS,
            synonyms=[
                _Describe.DescribeConfigsSynonym(name=origin.name, value=origin.value, source=origin.source)
                for origin in origins
            ]
            if request.include_synonyms
            else [],
            config_type=kind,
            documentation=None,
        )
        for name, value, origins, kind in entries
        if not wanted or name in wanted
    ]
    return result


class _RefusedError(StreamcoreError):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = code


_Entry = tuple[str, str | None, Sequence[Origin], int]  # name, value, where it comes from, type


def _entries(broker: "Broker", resource_type: int, name: str) -> Iterable[_Entry]:
    if resource_type == TOPIC:
        broker.node.check_topic_name(name)
        own = broker.node.topic(name).config
        # As it was given: a list keeps its order.
        values = {**broker.node.topic_defaults.format(), **own}
        return [
            (key, value, _topic_origins(broker, own, key), _TOPIC_TYPES.get(key, _LONG))
            for key, value in values.items()
        ]
    if resource_type == BROKER:
        dynamic = broker.settings.of(name)
        values_: Mapping[str, str | None] = dynamic if name == ALL_BROKERS else broker.config.format()
        entries: list[_Entry] = [
            (key, value, _broker_origins(broker, name, key), _BROKER_TYPES.get(key, _INT))
            for key, value in values_.items()
        ]
        if name != ALL_BROKERS:
            address = f"{broker.config.security_protocol}://{broker.endpoint.host}:{broker.endpoint.port}"
            origin = Origin("advertised.listeners", address, SOURCE_STATIC)
            entries.append((origin.name, address, [origin], _STRING))
        return entries
    raise _RefusedError(ErrorCode.INVALID_REQUEST, f"resources of type {resource_type} have no settings here")


def _topic_origins(broker: "Broker", own: Mapping[str, str], name: str) -> list[Origin]:
    defaults = broker.settings.origins(TOPIC_DEFAULTS[name])
    return [Origin(name, own[name], SOURCE_TOPIC), *defaults] if name in own else defaults


def _broker_origins(broker: "Broker", resource: str, name: str) -> list[Origin]:
    origins = broker.settings.origins(name)
    return [origin for origin in origins if origin.source != SOURCE_BROKER] if resource == ALL_BROKERS else origins


async def alter_configs(broker: "Broker", request: Any, context: Context) -> Any:
    """Everything that is not named goes back to its default."""
    responses: list[Any] = []
    for resource in request.resources:
        given = {entry.name: entry.value for entry in resource.configs}

        def changes(known: _Settings, now: _Settings, given: _Changes = given) -> _Changes:
            return {**dict.fromkeys(known), **given}

        responses.append(_altered(broker, _Alter, resource, changes, validate_only=request.validate_only))
    return _Alter.Response(responses=responses)


async def incremental_alter_configs(broker: "Broker", request: Any, context: Context) -> Any:
    responses: list[Any] = []
    for resource in request.resources:
        entries = resource.configs

        def changes(known: _Settings, now: _Settings, entries: list[Any] = entries) -> _Changes:
            return _incremental({**now, **known}, entries)

        responses.append(_altered(broker, _Incremental, resource, changes, validate_only=request.validate_only))
    return _Incremental.Response(responses=responses)


def _incremental(present: _Settings, entries: list[Any]) -> _Changes:
    changes: _Changes = {}
    for entry in entries:
        name, operation = entry.name, entry.config_operation
        if name in changes:
            raise _RefusedError(ErrorCode.INVALID_REQUEST, f"the request names {name} twice")
        if operation == DELETE:
            changes[name] = None
        elif entry.value is None:
            raise _RefusedError(ErrorCode.INVALID_REQUEST, f"{name} is set to null; delete it instead")
        elif operation == SET:
            changes[name] = entry.value
        elif operation in (APPEND, SUBTRACT):
            if _LIST not in (_TOPIC_TYPES.get(name), _BROKER_TYPES.get(name)):
                raise _RefusedError(ErrorCode.INVALID_CONFIG, f"{name} is no list that could grow or shrink")
            now = [part for part in (present.get(name) or "").split(",") if part]
            parts = [part for part in entry.value.split(",") if part]
            changes[name] = ",".join(
                now + [part for part in parts if part not in now]
                if operation == APPEND
                else [part for part in now if part not in parts]
            )
        else:
            raise _RefusedError(ErrorCode.INVALID_REQUEST, f"operation {operation} on {name} is unknown")
    return changes


def _altered(broker: "Broker", api: Any, resource: Any, changes_of: Any, *, validate_only: bool) -> Any:
    response = api.AlterConfigsResourceResponse(
        resource_type=resource.resource_type, resource_name=resource.resource_name, error_message=None
    )
    try:
        _alter(broker, resource.resource_type, resource.resource_name, changes_of, validate_only=validate_only)
    except _RefusedError as error:
        response.error_code, response.error_message = error.error_code, str(error)
    except StreamcoreError as error:
        response.error_code, response.error_message = error.code, str(error)
    except OSError as error:
        response.error_code, response.error_message = ErrorCode.KAFKA_STORAGE_ERROR, f"nothing was changed: {error}"
    return response


def _alter(broker: "Broker", resource_type: int, name: str, changes_of: Any, *, validate_only: bool) -> None:
    if resource_type == BROKER:
        known = broker.settings.of(name)
        try:
            broker.change_settings(name, changes_of(known, broker.config.format()), validate_only=validate_only)
        except InvalidConfigError as error:
            # As Kafka has it: a topic's bad value is INVALID_CONFIG, a broker's an invalid request.
            raise _RefusedError(ErrorCode.INVALID_REQUEST, str(error)) from error
        return
    if resource_type != TOPIC:
        raise _RefusedError(ErrorCode.INVALID_REQUEST, f"resources of type {resource_type} have no settings here")
    known = broker.node.topic(name).config
    changes = changes_of(known, broker.node.topic_defaults.format())
    if validate_only:
        LogConfig.parse({key: value for key, value in {**known, **changes}.items() if value is not None})
    else:
        broker.node.alter_config(name, changes)


async def list_config_resources(broker: "Broker", request: Any, context: Context) -> Any:
    """The topics and this node. Version 0 asks for client metrics alone, of which there are none."""
    wanted = set(request.resource_types or (TOPIC, BROKER)) if context.version > 0 else set()
    found = [(TOPIC, name) for name in sorted(broker.node.topics)] + [(BROKER, str(broker.config.node_id))]
    return _List.Response(
        config_resources=[
            _List.ConfigResource(resource_name=name, resource_type=kind) for kind, name in found if kind in wanted
        ]
    )


HANDLERS = {
    _List: list_config_resources,
    _Describe: describe_configs,
    _Alter: alter_configs,
    _Incremental: incremental_alter_configs,
}
