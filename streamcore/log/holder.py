"""Who has a data directory open: what is in its lock file, and what another process is told."""

import json
import os
import sys
import time


def describe_this_process(command: str) -> bytes:
    """The content of a lock file; the command line is that of the process where none is given."""
    command = command or " ".join(sys.argv) or sys.executable
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return json.dumps({"pid": os.getpid(), "command": command, "since": since}).encode()


def held_message(path: str, holder: bytes) -> str:
    """One sentence with the holder, as far as the lock file tells, and the remedy."""
    try:
        content = json.loads(holder)
        who = f"process {content['pid']} ({content['command']}) since {content['since']}"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return f"{path} is open in {who}; stop that process, or use another directory"
