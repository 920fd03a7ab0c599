"""DescribeConfigs 1-4, AlterConfigs 0-2, IncrementalAlterConfigs 0-1: settings with their defaults and sources.

A topic's settings change at run time and are effective at once. A node's own are what it was started with.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from streamcore.broker.config import BrokerConfig
from streamcore.broker.requests import Context
from streamcore.errors import InvalidConfigError, StreamcoreError
from streamcore.log.config import LogConfig
from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from streamcore.broker.broker import Broker

_Describe = messages.DescribeConfigs
_Alter = messages.AlterConfigs
_Incremental = messages.IncrementalAlterConfigs
TOPIC, BROKER = 2, 4
SOURCE_TOPIC, SOURCE_STATIC_BROKER, SOURCE_DEFAULT = 1, 4, 5
_BOOLEAN, _STRING, _INT, _LONG, _DOUBLE, _LIST = 1, 2, 3, 5, 6, 7
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
# What Kafka calls a topic's setting where it is a default for all topics; shown as where a default comes from. What has
# no such default in Kafka itself (retention.ms, segment.ms) shows none.
_DEFAULT_NAMES: Final[Mapping[str, str]] = {
    "cleanup.policy": "log.cleanup.policy",
    "compression.type": "compression.type",
    "delete.retention.ms": "log.cleaner.delete.retention.ms",
    "file.delete.delay.ms": "log.segment.delete.delay.ms",
    "flush.messages": "log.flush.interval.messages",
    "index.interval.bytes": "log.index.interval.bytes",
    "max.compaction.lag.ms": "log.cleaner.max.compaction.lag.ms",
    "max.message.bytes": "message.max.bytes",
    "message.timestamp.after.max.ms": "log.message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms": "log.message.timestamp.before.max.ms",
    "message.timestamp.type": "log.message.timestamp.type",
    "min.cleanable.dirty.ratio": "log.cleaner.min.cleanable.ratio",
    "min.compaction.lag.ms": "log.cleaner.min.compaction.lag.ms",
    "min.insync.replicas": "min.insync.replicas",
    "retention.bytes": "log.retention.bytes",
    "segment.bytes": "log.segment.bytes",
    "segment.index.bytes": "log.index.size.max.bytes",
}
_BROKER_TYPES: Final[Mapping[str, int]] = {"auto.create.topics.enable": _BOOLEAN, "delete.topic.enable": _BOOLEAN}


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
            read_only=resource.resource_type == BROKER,
            config_source=source,
            synonyms=_synonyms(resource.resource_type, name, value, source, default)
            if request.include_synonyms
            else [],
            config_type=kind,
            documentation=None,
        )
        for name, value, source, default, kind in entries
        if not wanted or name in wanted
    ]
    return result


class _RefusedError(StreamcoreError):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = code


_Entry = tuple[str, str, int, str, int]  # name, value, source, default, type


def _entries(broker: "Broker", resource_type: int, name: str) -> Iterable[_Entry]:
    if resource_type == TOPIC:
        broker.node.check_topic_name(name)
        meta = broker.node.topic(name)
        # As it was given: a list keeps its order.
        defaults = LogConfig().format()
        values = {**defaults, **meta.config}
        return [
            (
                key,
                value,
                SOURCE_TOPIC if key in meta.config else SOURCE_DEFAULT,
                defaults[key],
                _TOPIC_TYPES.get(key, _LONG),
            )
            for key, value in values.items()
        ]
    if resource_type == BROKER:
        _check_broker(broker, name)
        values, defaults = broker.config.format(), BrokerConfig().format()
        return [
            (
                key,
                value,
                SOURCE_STATIC_BROKER if value != defaults[key] or key == "node.id" else SOURCE_DEFAULT,
                defaults[key],
                _BROKER_TYPES.get(key, _INT),
            )
            for key, value in values.items()
        ]
    raise _RefusedError(ErrorCode.INVALID_REQUEST, f"resources of type {resource_type} have no settings here")


def _check_broker(broker: "Broker", name: str) -> None:
    if name not in ("", str(broker.config.node_id)):
        raise _RefusedError(
            ErrorCode.INVALID_REQUEST, f"this is node {broker.config.node_id}; it cannot speak for {name!r}"
        )


def _synonyms(resource_type: int, name: str, value: str, source: int, default: str) -> list[Any]:
    """Where a value comes from, and what would be next."""
    found = []
    if source != SOURCE_DEFAULT:
        found.append(_Describe.DescribeConfigsSynonym(name=name, value=value, source=source))
    default_name = _DEFAULT_NAMES.get(name) if resource_type == TOPIC else name
    if default_name is not None:
        found.append(_Describe.DescribeConfigsSynonym(name=default_name, value=default, source=SOURCE_DEFAULT))
    return found


async def alter_configs(broker: "Broker", request: Any, context: Context) -> Any:
    """Everything that is not named goes back to its default."""
    responses: list[Any] = []
    for resource in request.resources:
        given = {entry.name: entry.value for entry in resource.configs}

        def changes(known: Mapping[str, str], given: dict[str, str | None] = given) -> dict[str, str | None]:
            return {**dict.fromkeys(known), **given}

        responses.append(_altered(broker, _Alter, resource, changes, validate_only=request.validate_only))
    return _Alter.Response(responses=responses)


async def incremental_alter_configs(broker: "Broker", request: Any, context: Context) -> Any:
    responses: list[Any] = []
    for resource in request.resources:
        entries = resource.configs

        def changes(known: Mapping[str, str], entries: list[Any] = entries) -> dict[str, str | None]:
            return _incremental(known, entries)

        responses.append(_altered(broker, _Incremental, resource, changes, validate_only=request.validate_only))
    return _Incremental.Response(responses=responses)


def _incremental(known: Mapping[str, str], entries: list[Any]) -> dict[str, str | None]:
    defaults = LogConfig().format()
    changes: dict[str, str | None] = {}
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
            if _TOPIC_TYPES.get(name) != _LIST:
                raise _RefusedError(ErrorCode.INVALID_CONFIG, f"{name} is no list that could grow or shrink")
            now = [part for part in known.get(name, defaults[name]).split(",") if part]
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
        if resource.resource_type == BROKER:
            _check_broker(broker, resource.resource_name)
            raise InvalidConfigError("a node's settings are those that it was started with: change them there")
        if resource.resource_type != TOPIC:
            raise _RefusedError(
                ErrorCode.INVALID_REQUEST, f"resources of type {resource.resource_type} have no settings here"
            )
        known = broker.node.topic(resource.resource_name).config
        changes = changes_of(known)
        if validate_only:
            LogConfig.parse({name: value for name, value in {**known, **changes}.items() if value is not None})
        else:
            broker.node.alter_config(resource.resource_name, changes)
    except _RefusedError as error:
        response.error_code, response.error_message = error.error_code, str(error)
    except StreamcoreError as error:
        response.error_code, response.error_message = error.code, str(error)
    return response


HANDLERS = {
    _Describe: describe_configs,
    _Alter: alter_configs,
    _Incremental: incremental_alter_configs,
}
