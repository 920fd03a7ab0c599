"""What pages ask for beside the live feed: records, rows, the status once. Read only."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from streamcore.errors import OffsetOutOfRangeError, StreamcoreError, UnknownTopicError
from streamcore.web.feed import Feed
from streamcore.web.payload import dump, readable
from streamcore.web.queries import integer, text
from streamcore.web.views import WebWorker

RECORDS_MAX = 200
ROWS_MAX = 500
PARTITION_MAX = (1 << 31) - 1


def _json(value: Any, status: int = 200) -> Response:
    return Response(dump(value), status, {"Cache-Control": "no-store"}, "application/json")


class Api:
    """The JSON endpoints below /api."""

    def __init__(self, worker: WebWorker, feed: Feed) -> None:
        self._worker = worker
        self._feed = feed

    async def status(self, request: Request) -> Response:
        """The newest snapshot, as the feed sends it."""
        snapshot = await self._feed.current()
        return Response(snapshot.full, headers={"Cache-Control": "no-store"}, media_type="application/json")

    async def records(self, request: Request) -> Response:
        """`?offset=&count=`: the records of a partition from an offset on, in their order.

        Without an offset, the last `count` there are. An offset outside the log is moved into it; the answer says what
        the log holds, so a page can tell.
        """
        topic = request.path_params["topic"]
        partition = integer(request.path_params, "partition", 0, high=PARTITION_MAX)
        count = integer(request.query_params, "count", 50, low=1, high=RECORDS_MAX)
        offset = integer(request.query_params, "offset", -1, low=-1)
        held = await self._partition(topic, partition)
        start, end = held["log_start_offset"], held["log_end_offset"]
        asked = max(start, end - count) if offset < 0 else offset
        place = min(max(asked, start), end)
        records: list[dict[str, Any]] = []
        if place < end:
            try:
                records = await self._worker.read_records(topic, partition, place, count)
            except OffsetOutOfRangeError:
                pass  # retention moved the start while we asked; an empty page says so
            except UnknownTopicError as error:
                raise HTTPException(404, str(error)) from error
            except StreamcoreError as error:
                raise HTTPException(503, str(error)) from error
        return _json(
            {
                "topic": topic,
                "partition": partition,
                "log_start_offset": start,
                "log_end_offset": end,
                "offset": place,
                "asked": asked,
                "records": [_record(record) for record in records[:count]],
            }
        )

    async def rows(self, request: Request) -> Response:
        """`?prefix=&limit=`: rows of a table whose key starts with the prefix."""
        table = request.path_params["table"]
        prefix = text(request.query_params, "prefix")
        limit = integer(request.query_params, "limit", 100, low=1, high=ROWS_MAX)
        status = (await self._feed.current()).status
        if table not in {each["name"] for each in status["tables"]}:
            raise HTTPException(404, f"there is no table {table!r}")
        try:
            # One more than is shown, to know whether there are more.
            rows = _rows(await self._worker.table_rows(table, prefix, limit + 1))
        except StreamcoreError as error:
            raise HTTPException(503, str(error)) from error
        return _json({"table": table, "prefix": prefix, "rows": rows[:limit], "more": len(rows) > limit})

    async def _partition(self, topic: str, partition: int) -> dict[str, Any]:
        status = (await self._feed.current()).status
        for each in status["topics"]:
            if each["name"] == topic:
                for part in each["partitions"]:
                    if part["partition"] == partition:
                        found: dict[str, Any] = part
                        return found
                raise HTTPException(404, f"topic {topic!r} has no partition {partition}")
        raise HTTPException(404, f"there is no topic {topic!r}")


def _record(record: dict[str, Any]) -> dict[str, Any]:
    headers = record.get("headers") or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {
        "offset": record["offset"],
        "timestamp": record["timestamp"],
        "key": readable(record["key"]),
        "value": readable(record["value"]),
        "headers": [[str(name), readable(value)] for name, value in pairs],
    }


def _rows(rows: Any) -> list[dict[str, Any]]:
    """Rows in one shape, whether the worker has dicts, (key, value) pairs or a mapping."""
    if isinstance(rows, dict):
        rows = list(rows.items())
    shaped = []
    for row in rows:
        if isinstance(row, dict):
            key, value = row.get("key"), row.get("value")
            extra = {name: inner for name, inner in row.items() if name not in ("key", "value")}
        else:
            key, value, *_ = row
            extra = {}
        window = extra.pop("window", None)
        if isinstance(window, list | tuple) and len(window) == 2:  # seconds, as Faust counts them
            extra["window_start_ms"], extra["window_end_ms"] = (round(bound * 1000) for bound in window)
        shaped.append({"key": readable(key), "value": readable(value)} | extra)
    return shaped
