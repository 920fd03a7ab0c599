"""Whether a topic takes a producer's batches: everything is decided before a byte is written."""

from streamcore.errors import InvalidTimestampError, KeylessRecordError, RecordTooLargeError
from streamcore.log.config import INT64_MAX, LogConfig
from streamcore.records.batch import NO_TIMESTAMP, BatchHeader, Buffer, stamp_log_append_time, validate
from streamcore.records.codec import decode, recompress


def admit(batches: Buffer, config: LogConfig, now_ms: int) -> tuple[bytearray | memoryview, list[BatchHeader]]:
    """The bytes to be written, as far as offsets do not matter, and their headers; a copy where they are read-only.

    A batch is judged by its header and checksum. Its records are read only where a setting needs them: a compacted
    topic (keys), a lower bound of timestamps, a compression of the topic's own.

    Raises:
        CorruptRecordError, InvalidRecordError, KeylessRecordError, RecordTooLargeError, InvalidTimestampError.
    """
    headers = validate(batches)
    for header in headers:
        if header.size_bytes > config.max_message_bytes:
            raise RecordTooLargeError(
                f"a batch of {header.size_bytes} bytes is larger than max.message.bytes ({config.max_message_bytes})"
            )
    creates = config.message_timestamp_type == "CreateTime"
    if creates:
        _check_timestamps(headers, config, now_ms)
    has_lower_bound = creates and config.message_timestamp_before_max_ms < INT64_MAX
    if config.is_compacted or has_lower_bound:
        _check_records(batches, headers, config, now_ms if has_lower_bound else None)
    data: bytearray | memoryview
    if isinstance(batches, bytes) or (isinstance(batches, memoryview) and batches.readonly):
        data = bytearray(batches)
    else:
        data = batches
    if config.compression_type != "producer":
        data, headers = _recompressed(data, headers, config)
    if not creates:
        position = 0
        for header in headers:
            stamp_log_append_time(data, position, header.size_bytes, now_ms)
            position += header.size_bytes
        headers = [header._replace(max_timestamp=now_ms) for header in headers]
    return data, headers


def _check_timestamps(headers: list[BatchHeader], config: LogConfig, now_ms: int) -> None:
    latest_ms = now_ms + config.message_timestamp_after_max_ms
    for header in headers:
        if header.max_timestamp > latest_ms:
            raise InvalidTimestampError(
                f"a record's timestamp {header.max_timestamp} is {header.max_timestamp - now_ms} ms in the future; "
                f"message.timestamp.after.max.ms allows {config.message_timestamp_after_max_ms}"
            )
        if header.is_log_append_time:
            raise InvalidTimestampError("a batch claims log append time, which only the log itself gives")


def _check_records(batches: Buffer, headers: list[BatchHeader], config: LogConfig, now_ms: int | None) -> None:
    view = memoryview(batches)
    position = index = 0
    keyless: dict[int, str] = {}
    for header in headers:
        for record in decode(view[position : position + header.size_bytes]):
            if config.is_compacted and record.key is None:
                keyless[index] = "a compacted topic takes no record without a key"
            if now_ms is not None and NO_TIMESTAMP < record.timestamp < now_ms - config.message_timestamp_before_max_ms:
                raise InvalidTimestampError(
                    f"record {index} is {now_ms - record.timestamp} ms old; "
                    f"message.timestamp.before.max.ms allows {config.message_timestamp_before_max_ms}"
                )
            index += 1
        position += header.size_bytes
    if keyless:
        raise KeylessRecordError(keyless)


def _recompressed(
    data: bytearray | memoryview, headers: list[BatchHeader], config: LogConfig
) -> tuple[bytearray | memoryview, list[BatchHeader]]:
    """The batches under the topic's own compression; what has it already stays as it is."""
    wanted = "none" if config.compression_type == "uncompressed" else config.compression_type
    if all(header.compression == wanted for header in headers):
        return data, headers
    parts = []
    position = 0
    for header in headers:
        batch = data[position : position + header.size_bytes]
        parts.append(batch if header.compression == wanted else recompress(batch, wanted))
        position += header.size_bytes
    for part in parts:
        if len(part) > config.max_message_bytes:
            raise RecordTooLargeError(
                f"a batch is {len(part)} bytes under compression.type {config.compression_type}, "
                f"more than max.message.bytes ({config.max_message_bytes})"
            )
    return bytearray().join(parts), [BatchHeader.parse(part) for part in parts]
