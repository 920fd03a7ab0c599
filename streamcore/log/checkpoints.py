"""The small text files beside the segments, in Kafka's formats: offsets per partition, a partition's topic id."""

import base64
import uuid
from collections.abc import Mapping

from streamcore.log.disk import Disk, read_file, replace_file


class CheckpointError(ValueError):
    """A checkpoint whose text is not what it should be; its reader falls back to a longer scan."""


def write_offsets(disk: Disk, path: str, offsets: Mapping[tuple[str, int], int]) -> None:
    """Version, count, then `topic partition offset` per line."""
    lines = [
        "0",
        str(len(offsets)),
        *(f"{topic} {partition} {offset}" for (topic, partition), offset in offsets.items()),
    ]
    replace_file(disk, path, ("\n".join(lines) + "\n").encode())


def read_offsets(disk: Disk, path: str) -> dict[tuple[str, int], int]:
    """Empty where there is no file.

    Raises:
        CheckpointError: the text is damaged.
    """
    offsets = {}
    for line in read_entries(disk, path):
        if len(line) != 3:
            raise CheckpointError(f"{path}: {' '.join(line)!r} is not `topic partition offset`")
        offsets[line[0], _integer(path, line[1])] = _integer(path, line[2])
    return offsets


def read_entries(disk: Disk, path: str) -> list[list[str]]:
    """The words of each entry of a checkpoint file; empty where there is no file.

    Raises:
        CheckpointError: the text is damaged.
    """
    if not disk.exists(path):
        return []
    try:
        text = read_file(disk, path).decode("ascii")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: {error}") from error
    lines = text.splitlines()
    # The last line break tells a whole file from one whose last number is cut off.
    if not text.endswith("\n"):
        raise CheckpointError(f"{path}: it ends in the middle of a line")
    if len(lines) < 2 or lines[0] != "0" or _integer(path, lines[1]) != len(lines) - 2:
        raise CheckpointError(f"{path}: the version, or the number of lines, is wrong")
    return [line.split(" ") for line in lines[2:]]


def write_topic_id(disk: Disk, path: str, topic_id: uuid.UUID) -> None:
    """Kafka's `partition.metadata`."""
    text = base64.urlsafe_b64encode(topic_id.bytes).decode().rstrip("=")
    replace_file(disk, path, f"version: 0\ntopic_id: {text}\n".encode())


def read_topic_id(disk: Disk, path: str) -> uuid.UUID | None:
    """None where the file is missing or damaged."""
    try:
        lines = read_file(disk, path).decode("ascii").splitlines()
        settings = dict(line.split(": ", 1) for line in lines)
        return uuid.UUID(bytes=base64.urlsafe_b64decode(settings["topic_id"] + "=="))
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _integer(path: str, text: str) -> int:
    # int() takes more than Kafka writes ("+1", "1_0"), and such text is damage.
    if not text.lstrip("-").isdigit() or not text.isascii():
        raise CheckpointError(f"{path}: {text!r} is not a number")
    return int(text)
