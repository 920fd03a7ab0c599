"""A real process, really killed: what it had acknowledged is there. Invariant 8."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from streamcore.log.directory import LogDirectory
from tests.log.support import read_values

ROUNDS = 3
PROGRAM = """
import sys
from streamcore.log.directory import LogDirectory
from streamcore.records.codec import encode
directory = LogDirectory.open(sys.argv[1])
if not directory.topics:
    directory.create_topic("a", 1, {"segment.bytes": "20000"})
log = directory.log("a", 0)
while True:
    offset = log.log_end_offset
    log.append_as_leader(encode([(b"k", b"%d" % (offset + n), 1, ()) for n in range(7)]))
    if offset % 5 == 0:
        log.flush()
        directory.checkpoint()
    print(log.log_end_offset, flush=True)
"""


def test_what_was_acknowledged_before_kill_nine_is_there(tmp_path: Path) -> None:
    """Invariant 8."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    source = random.Random(seed)
    acknowledged = 0
    for _ in range(ROUNDS):
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(source.randrange(1, 400)):
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.wait()
        # It may have acknowledged more than was read so far, up to the last whole line.
        lines = [line for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        child.stdout.close()
        acknowledged = int(lines[-1]) if lines else acknowledged
        directory = LogDirectory.open(str(tmp_path / "data"))
        log = directory.log("a", 0)
        assert log.log_end_offset >= acknowledged
        assert read_values(log) == [b"%d" % offset for offset in range(log.log_end_offset)]
        directory.close()
