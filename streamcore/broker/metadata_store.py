"""What a cluster agrees on, behind one interface: now a durable local file, later a store that several nodes share.

Values are small JSON documents under a key. Every change is a compare-and-set on the key's revision, so that nothing
changes where a store is shared that would not have been right on one node.
"""

import json
import logging
from typing import Any, Final, Protocol

from streamcore.errors import StreamcoreError
from streamcore.log.disk import Disk, read_file, replace_file

logger = logging.getLogger(__name__)

_FILE: Final = "cluster.json"


class RevisionMismatchError(StreamcoreError):
    """Somebody else has changed the key meanwhile: read it again, and decide again."""


class MetadataStore(Protocol):
    def get(self, key: str) -> tuple[Any, int]:
        """(value, revision); (None, 0) for a key that is not there."""

    def put(self, key: str, value: Any, revision: int) -> int:
        """Set a key that still has this revision, durably; the new revision.

        Raises:
            RevisionMismatchError, OSError
        """


class LocalMetadataStore:
    """One file in the data directory, replaced as a whole."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._path = f"{directory}/{_FILE}"
        self._entries: dict[str, tuple[Any, int]] = {}
        if disk.exists(self._path):
            try:
                content = json.loads(read_file(disk, self._path))
                self._entries = {key: (entry["value"], int(entry["revision"])) for key, entry in content.items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                # Nothing here is worth not starting for: ids are made anew. It is kept for whoever wants to look.
                disk.rename(self._path, self._path + ".damaged")
                logger.error(
                    "%s is damaged (%s) and set aside as .damaged: the cluster begins with new ids, and without the "
                    "users that were added to it",
                    self._path,
                    error,
                )

    def get(self, key: str) -> tuple[Any, int]:
        return self._entries.get(key, (None, 0))

    def put(self, key: str, value: Any, revision: int) -> int:
        if self._entries.get(key, (None, 0))[1] != revision:
            raise RevisionMismatchError(f"{key} has another revision than {revision}")
        entries = {**self._entries, key: (value, revision + 1)}
        content = {name: {"value": entry[0], "revision": entry[1]} for name, entry in entries.items()}
        # The keys of SCRAM users are in it: enough to log in as one of them.
        replace_file(self._disk, self._path, json.dumps(content, indent=1).encode() + b"\n", is_secret=True)
        self._entries = entries
        return revision + 1
