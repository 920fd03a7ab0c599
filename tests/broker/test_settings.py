"""A node's settings: where they come from, which change at run time, and that they are effective at once (KIP-226)."""

import asyncio
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from streamcore.broker.config import BROKER_SETTINGS, TOPIC_DEFAULTS, BrokerConfig
from streamcore.broker.handlers.configs import APPEND, BROKER, DELETE, SET, TOPIC
from streamcore.broker.metadata_store import LocalMetadataStore
from streamcore.broker.settings import DYNAMIC, BrokerSettings, Origin, ReadOnlySettingError, UnknownNodeError
from streamcore.errors import InvalidConfigError
from streamcore.log.config import TOPIC_SETTINGS, LogConfig
from streamcore.log.memory_disk import MemoryDisk
from streamcore.protocol import messages
from tests.broker.wire import Client, serving


def settings_on(disk: MemoryDisk, **static: object) -> BrokerSettings:
    disk.make_directory("/data")
    config = BrokerConfig.parse({name.replace("_", "."): value for name, value in static.items()})
    return BrokerSettings(config, LocalMetadataStore(disk, "/data"))


def test_every_field_has_a_parser_and_every_topic_setting_a_default() -> None:
    assert {field.name.replace("_", ".") for field in fields(BrokerConfig)} == BROKER_SETTINGS | {"sasl.users"}
    assert set(TOPIC_DEFAULTS) == set(TOPIC_SETTINGS)
    assert BrokerConfig().topic_defaults() == LogConfig()
    texts = {name: text for name, text in BrokerConfig().format().items() if text is not None}
    assert BrokerConfig.parse(texts) == BrokerConfig()


@pytest.mark.parametrize(
    ("given", "retention_ms"),
    [
        ({}, 604_800_000),
        ({"log.retention.hours": 1}, 3_600_000),
        ({"log.retention.hours": 1, "log.retention.minutes": 2}, 120_000),
        ({"log.retention.minutes": 2, "log.retention.ms": 3}, 3),
        ({"log.retention.hours": -1}, None),
        ({"log.retention.ms": -1, "log.retention.hours": 1}, None),
    ],
)
def test_the_finest_unit_of_a_time_counts(given: dict[str, object], retention_ms: int | None) -> None:
    assert BrokerConfig.parse(given).topic_defaults().retention_ms == retention_ms


def test_a_node_wins_over_all_nodes_and_those_over_its_start() -> None:
    disk = MemoryDisk()
    settings = settings_on(disk, log_segment_bytes=1000)
    assert settings.origins("log.segment.bytes") == [
        Origin("log.segment.bytes", "1000", 4),
        Origin("log.segment.bytes", "1073741824", 5),
    ]
    settings.change("", {"log.segment.bytes": "2000"}, validate_only=False)
    assert settings.config.log_segment_bytes == 2000
    settings.change("1", {"log.segment.bytes": "3000"}, validate_only=False)
    assert settings.config.topic_defaults().segment_bytes == 3000
    assert [origin[1:] for origin in settings.origins("log.segment.bytes")] == [
        ("3000", 2),
        ("2000", 3),
        ("1000", 4),
        ("1073741824", 5),
    ]
    again = settings_on(disk, log_segment_bytes=1000)
    assert again.config == settings.config
    again.change("1", {"log.segment.bytes": None}, validate_only=False)
    assert again.config.log_segment_bytes == 2000
    assert settings_on(disk, node_id=2).config.log_segment_bytes == 2000


def test_an_unset_time_shows_no_origin_but_its_coarser_unit_does() -> None:
    settings = settings_on(MemoryDisk())
    assert settings.origins("log.retention.ms") == []
    assert settings.origins("log.retention.hours") == [Origin("log.retention.hours", "168", 5)]
    settings.change("", {"log.retention.ms": "5"}, validate_only=False)
    assert settings.origins("log.retention.ms") == [
        Origin("log.retention.ms", "5", 3),
        Origin("log.retention.hours", "168", 5),
    ]


def test_what_is_refused_changes_nothing() -> None:
    disk = MemoryDisk()
    settings = settings_on(disk)
    before = settings.config
    with pytest.raises(ReadOnlySettingError, match=r"num\.partitions cannot be changed"):
        settings.change("", {"num.partitions": "3", "log.segment.bytes": "2000"}, validate_only=False)
    with pytest.raises(ReadOnlySettingError, match="cannot differ by node"):
        settings.change("1", {"producer.id.expiration.ms": "3"}, validate_only=False)
    with pytest.raises(InvalidConfigError, match="did you mean"):
        settings.change("", {"log.segment.byte": "3"}, validate_only=False)
    with pytest.raises(InvalidConfigError, match="whole number"):
        settings.change("", {"log.segment.bytes": "many"}, validate_only=False)
    with pytest.raises(UnknownNodeError):
        settings.change("7", {"log.segment.bytes": "2000"}, validate_only=False)
    settings.change("", {"log.segment.bytes": "2000"}, validate_only=True)
    assert settings.config == before == settings_on(disk).config


def test_a_stored_setting_that_is_none_any_more_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    disk = MemoryDisk()
    disk.make_directory("/data")
    store = LocalMetadataStore(disk, "/data")
    store.put("broker-settings", {"": {"log.segment.bytes": "2000", "gone": "1"}}, 0)
    settings = BrokerSettings(BrokerConfig(), store)
    assert settings.config.log_segment_bytes == 2000
    assert "gone" in caplog.text


_Describe, _Incremental = messages.DescribeConfigs, messages.IncrementalAlterConfigs


async def described(client: Client, kind: int, name: str, *wanted: str) -> dict[str, Any]:
    resource = _Describe.DescribeConfigsResource(
        resource_type=kind, resource_name=name, configuration_keys=list(wanted) or None
    )
    answer = await client.ask(_Describe, 4, _Describe.Request(resources=[resource], include_synonyms=True))
    (result,) = answer.results
    assert result.error_code == 0, result.error_message
    return {config.name: config for config in result.configs}


async def altered(client: Client, kind: int, name: str, *changes: tuple[str, int, str | None]) -> tuple[int, str]:
    configs = [_Incremental.AlterableConfig(name=key, config_operation=op, value=text) for key, op, text in changes]
    resource = _Incremental.AlterConfigsResource(resource_type=kind, resource_name=name, configs=configs)
    answer = await client.ask(_Incremental, 1, _Incremental.Request(resources=[resource], validate_only=False))
    return answer.responses[0].error_code, answer.responses[0].error_message or ""


def test_a_default_that_changes_counts_at_once_for_topics_that_do_not_say(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path, log_retention_hours=2) as server, Client.of(server) as client:
            node = server.broker.node
            node.create_topic("plain", 1, {})
            node.create_topic("own", 1, {"retention.ms": "7"})
            plain, own = node.directory.log("plain", 0), node.directory.log("own", 0)
            assert (plain.config.retention_ms, own.config.retention_ms) == (7_200_000, 7)
            assert await altered(client, BROKER, "", ("log.retention.ms", SET, "5")) == (0, "")
            assert (plain.config.retention_ms, own.config.retention_ms) == (5, 7)
            node.create_topic("later", 1, {})
            assert node.directory.log("later", 0).config.retention_ms == 5
            shown = (await described(client, TOPIC, "plain", "retention.ms"))["retention.ms"]
            assert (shown.value, shown.config_source) == ("5", 3)
            shown = (await described(client, TOPIC, "own", "retention.ms"))["retention.ms"]
            assert [(s.name, s.value, s.source) for s in shown.synonyms] == [
                ("retention.ms", "7", 1),
                ("log.retention.ms", "5", 3),
                ("log.retention.hours", "2", 4),
                ("log.retention.hours", "168", 5),
            ]
            assert await altered(client, BROKER, "1", ("log.cleanup.policy", APPEND, "compact")) == (0, "")
            assert plain.config.cleanup_policy == {"compact", "delete"}
            assert set(await described(client, BROKER, "1")) == BROKER_SETTINGS | {"advertised.listeners"}
            assert list(await described(client, BROKER, "")) == ["log.retention.ms"]
            all_of_it = await described(client, BROKER, "1")
            assert {name for name, config in all_of_it.items() if not config.read_only} == DYNAMIC
            assert all_of_it["log.cleanup.policy"].config_source == 2
            code, message = await altered(client, BROKER, "1", ("num.partitions", SET, "5"))
            assert code == 42
            assert "start it with another value" in message
            assert await altered(client, BROKER, "", ("producer.id.expiration.ms", SET, "12345")) == (0, "")
            assert plain.producers.expiration_ms == 12345
        async with serving(tmp_path) as server, Client.of(server) as client:
            log = server.broker.node.directory.log("plain", 0)
            assert (log.config.retention_ms, log.producers.expiration_ms) == (5, 12345)
            assert await altered(client, BROKER, "", ("log.retention.ms", DELETE, None)) == (0, "")
            assert log.config.retention_ms == 604_800_000

    asyncio.run(run())


def test_the_cleaner_can_be_switched_off(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path, log_cleaner_enable=False) as server:
            assert not server.broker.node.config.cleaner

    asyncio.run(run())


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"group.consumer.session.timeout.ms": 6000}, "group.consumer.session.timeout.ms=6000 is outside"),
        ({"group.consumer.heartbeat.interval.ms": 20_000}, "group.consumer.heartbeat.interval.ms=20000 is outside"),
        (
            {"group.consumer.max.heartbeat.interval.ms": 60_000, "group.consumer.heartbeat.interval.ms": 50_000},
            "must be less than group.consumer.session.timeout.ms",
        ),
        ({"group.consumer.assignors": "uniform,sticky"}, "uniform, range"),
        ({"group.consumer.assignors": ""}, "uniform, range"),
        ({"group.consumer.migration.policy": "sometimes"}, "bidirectional"),
    ],
)
def test_times_and_assignors_of_consumer_groups_are_checked(given: dict[str, object], what: str) -> None:
    with pytest.raises(InvalidConfigError, match=what):
        BrokerConfig.parse(given)
