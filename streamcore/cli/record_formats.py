"""How `consume` shows a record: a line for people, JSON, the bare value, or the user's own template."""

import string
from collections.abc import Callable
from typing import Any

import click
import orjson

from streamcore.cli.output import iso_time, json_text, json_value, show_bytes, show_time
from streamcore.cli.problems import did_you_mean
from streamcore.types import TP, Headers, InRecord

Formatter = Callable[[TP, InRecord], bytes]  # one record as it is written, newline included

FIELDS = ("topic", "partition", "offset", "timestamp", "time", "key", "value", "headers")


def formatter_for(form: str, *, terminal: bool) -> Formatter:
    """The formatter that `--format` names; anything with braces in it is a template."""
    if form == "text":
        return _text_on_terminal if terminal else _text
    if form == "json":
        return _json
    if form == "raw":
        return _raw
    if "{" in form:
        return _template(form)
    raise click.UsageError(
        f"--format '{form}' is neither text, json, raw nor a template such as '{{key}}: {{value}}'."
        f"{did_you_mean(form, ('text', 'json', 'raw'))}"
    )


def show_headers(headers: Headers) -> str:
    """Headers on a line."""
    return " ".join(f"{name}={show_bytes(value)}" for name, value in headers)


def _text(tp: TP, record: InRecord) -> bytes:
    # Tabs between the fields and none in them: cut(1) and awk(1) take it apart.
    cells = [f"{tp.partition}:{record.offset}", show_time(record.timestamp)]
    cells += [show_bytes(record.key, "(null)"), show_bytes(record.value, "(null)")]
    if record.headers:
        cells.append(show_headers(record.headers))
    return ("\t".join(cells) + "\n").encode()


def _text_on_terminal(tp: TP, record: InRecord) -> bytes:
    where = click.style(f"{tp.partition}:{record.offset}  {show_time(record.timestamp)}", dim=True)
    key = click.style(show_bytes(record.key), fg="cyan") if record.key is not None else click.style("(null)", dim=True)
    value = show_bytes(record.value) if record.value is not None else click.style("(null)", dim=True)
    headers = click.style(f"  {show_headers(record.headers)}", fg="green") if record.headers else ""
    return f"{where}  {key}  {value}{headers}\n".encode()


def _json(tp: TP, record: InRecord) -> bytes:
    return orjson.dumps(record_as_json(tp, record), option=orjson.OPT_APPEND_NEWLINE)


def record_as_json(tp: TP, record: InRecord) -> dict[str, Any]:
    """A record as `produce --format json` takes it back; headers are pairs where a name comes twice."""
    headers: Any = {name: json_text(value) for name, value in record.headers}
    if len(headers) < len(record.headers):
        headers = [[name, json_text(value)] for name, value in record.headers]
    return {
        "topic": tp.topic,
        "partition": tp.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "time": iso_time(record.timestamp),
        "key": json_text(record.key),
        "value": json_value(record.value),
        "headers": headers,
    }


def _raw(tp: TP, record: InRecord) -> bytes:
    return (record.value or b"") + b"\n"


def _template(text: str) -> Formatter:
    text = _unescape(text)
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise click.UsageError(f"--format '{text}' is no template: {error}.") from None
    for _, field, _, _ in parts:
        if field is None:
            continue
        name = field.split("[")[0].split(".")[0]
        if name not in FIELDS:
            hint = (
                did_you_mean(name, FIELDS)
                or f" There are: {', '.join(FIELDS)}; {{value[x]}} is a field of a JSON value."
            )
            raise click.UsageError(f"--format has no field '{name}'.{hint}")

    def render(tp: TP, record: InRecord) -> bytes:
        line = text.format(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.offset,
            timestamp=record.timestamp,
            time=show_time(record.timestamp),
            key=_Content(record.key),
            value=_Content(record.value),
            headers=_Named({name: show_bytes(value) for name, value in record.headers}, show_headers(record.headers)),
        )
        return line.encode("utf-8", "surrogateescape") + b"\n"

    return render


def _unescape(text: str) -> str:
    r"""\t and \n as the shell leaves them."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


class _Named:
    """Something with names in it, for `{headers[x]}`: missing ones show as a dash, of any format."""

    def __init__(self, content: Any, text: str) -> None:
        self._content = content
        self._text = text

    def __getitem__(self, name: str | int) -> Any:
        content = self._content
        try:
            found = content[name]
        except (KeyError, IndexError, TypeError):
            return _Named(None, "-")
        return _Named(found, _as_text(found))

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __format__(self, spec: str) -> str:
        if spec and isinstance(self._content, (int, float)):
            try:
                return format(self._content, spec)
            except ValueError:
                return self._text
        try:
            return format(self._text, spec)
        except ValueError:
            return self._text


class _Content(_Named):
    """A key or value: its text, and the fields of its JSON. It is parsed only when the template asks for a field."""

    def __init__(self, data: bytes | None) -> None:
        super().__init__(None, "" if data is None else data.decode("utf-8", "surrogateescape"))
        self._data = data

    def __getitem__(self, name: str | int) -> Any:
        if self._content is None and self._data:
            try:
                self._content = orjson.loads(self._data)
            except orjson.JSONDecodeError:
                pass
        return super().__getitem__(name)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()
