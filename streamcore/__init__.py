"""Stream processing in Python over its own partitioned log."""

from streamcore.agents import Agent
from streamcore.app import App
from streamcore.config import ErrorPolicy, retry
from streamcore.context import current_event
from streamcore.errors import StreamcoreError, UsageError
from streamcore.events import Event, Message, Watermark
from streamcore.models import Record
from streamcore.streams import JoinedStream, State, Stream
from streamcore.tables import Table, WindowedTable, WindowSet
from streamcore.topics import SentRecord, Topic
from streamcore.types import TP
from streamcore.windows import Window

__version__ = "0.1.0"

__all__ = [
    "TP",
    "Agent",
    "App",
    "ErrorPolicy",
    "Event",
    "JoinedStream",
    "Message",
    "Record",
    "SentRecord",
    "State",
    "Stream",
    "StreamcoreError",
    "Table",
    "Topic",
    "UsageError",
    "Watermark",
    "Window",
    "WindowSet",
    "WindowedTable",
    "current_event",
    "retry",
]
