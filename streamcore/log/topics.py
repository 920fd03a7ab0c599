"""The topics of a data directory, in one durable file."""

import json
import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from streamcore.log import filenames
from streamcore.log.checkpoints import read_topic_id
from streamcore.log.disk import Disk, read_file, replace_file

logger = logging.getLogger(__name__)

_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicMeta:
    """A topic as it was declared. `topic_id` tells it from an earlier one of the same name."""

    name: str
    topic_id: uuid.UUID
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)  # only what differs from the defaults, Kafka's names

    @property
    def internal(self) -> bool:
        """Whether it is the system's own; such names begin with two underscores, as Kafka's do."""
        return self.name.startswith("__")


def write_topics(disk: Disk, directory: str, topics: Iterable[TopicMeta], deleting: Iterable[TopicMeta]) -> None:
    """Durable on return. `deleting` are no topics any more, but their files may still be there."""
    content = {
        "version": _VERSION,
        "topics": [_to_json(topic) for topic in topics],
        "deleting": [_to_json(topic) for topic in deleting],
    }
    replace_file(disk, f"{directory}/{filenames.TOPICS}", json.dumps(content, indent=1).encode() + b"\n")


def read_topics(disk: Disk, directory: str) -> tuple[dict[str, TopicMeta], list[TopicMeta]]:
    """(topics, topics whose deletion was begun). A damaged file is made up for from the partitions' directories."""
    path = f"{directory}/{filenames.TOPICS}"
    if not disk.exists(path):
        return _from_directories(disk, directory), []
    try:
        content = json.loads(read_file(disk, path))
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']} is not known")
        topics = {topic.name: topic for topic in map(_from_json, content["topics"])}
        return topics, [_from_json(topic) for topic in content["deleting"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.error("%s is damaged (%s): topics come back from their directories, with default settings", path, error)
        return _from_directories(disk, directory), []


def _from_directories(disk: Disk, directory: str) -> dict[str, TopicMeta]:
    partitions: dict[str, int] = {}
    for name in disk.list_directory(directory):
        parsed = filenames.parse_partition_directory(name)
        if parsed is not None:
            topic, partition = parsed
            partitions[topic] = max(partitions.get(topic, 0), partition + 1)
    topics = {}
    for topic, count in partitions.items():
        path = f"{directory}/{filenames.partition_directory(topic, 0)}/{filenames.PARTITION_METADATA}"
        topics[topic] = TopicMeta(name=topic, topic_id=read_topic_id(disk, path) or uuid.uuid4(), partitions=count)
    return topics


def _to_json(topic: TopicMeta) -> dict[str, object]:
    return {
        "name": topic.name,
        "id": str(topic.topic_id),
        "partitions": topic.partitions,
        "config": dict(topic.config),
    }


def _from_json(entry: dict[str, object]) -> TopicMeta:
    name, partitions, config = entry["name"], entry["partitions"], entry["config"]
    if not isinstance(name, str) or not isinstance(partitions, int) or not isinstance(config, dict):
        raise ValueError(f"{entry!r} is no topic")
    return TopicMeta(name=name, topic_id=uuid.UUID(str(entry["id"])), partitions=partitions, config=config)
