"""Settings under Kafka's names."""

import pytest

from streamcore.errors import InvalidConfigError
from streamcore.log.config import LogConfig


def test_defaults_are_kafkas() -> None:
    shown = LogConfig().format()
    assert shown["retention.ms"] == "604800000"
    assert shown["retention.bytes"] == "-1"
    assert shown["segment.bytes"] == "1073741824"
    assert shown["max.message.bytes"] == "1048588"
    assert shown["index.interval.bytes"] == "4096"
    assert shown["cleanup.policy"] == "delete"
    assert shown["compression.type"] == "producer"
    assert shown["message.timestamp.type"] == "CreateTime"
    assert shown["message.timestamp.after.max.ms"] == "3600000"


def test_parsing_inverts_formatting() -> None:
    config = LogConfig.parse(
        {"cleanup.policy": "compact,delete", "retention.ms": "-1", "min.cleanable.dirty.ratio": "0.1"}
    )
    assert LogConfig.parse(config.format()) == config
    assert config.retention_ms is None
    assert config.is_compacted
    assert config.is_deleted


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("retention.msec", "retention.ms"),
        ("cleanup_policy", "cleanup.policy"),
        ("max.message.byte", "max.message.bytes"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(InvalidConfigError, match=f"did you mean '{nearest}'"):
        LogConfig.parse({name: "1"})


def test_a_name_like_no_other_is_refused_with_all_of_them() -> None:
    with pytest.raises(InvalidConfigError, match=r"known are .*retention\.ms"):
        LogConfig.parse({"zzz": "1"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("retention.ms", "-2"),
        ("retention.ms", "a week"),
        ("retention.ms", ""),
        ("segment.bytes", "13"),
        ("segment.bytes", str(1 << 31)),
        ("segment.ms", "0"),
        ("cleanup.policy", "keep"),
        ("cleanup.policy", ""),
        ("compression.type", "brotli"),
        ("message.timestamp.type", "createtime"),
        ("min.cleanable.dirty.ratio", "1.1"),
        ("min.cleanable.dirty.ratio", "nan"),
        ("max.message.bytes", "1e6"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidConfigError, match=name):
        LogConfig.parse({name: text})
