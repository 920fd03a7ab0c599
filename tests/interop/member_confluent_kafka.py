"""A group member with confluent-kafka: prints each value, then commits; SIGTERM makes it leave.

usage: member_confluent_kafka.py BOOTSTRAP TOPIC GROUP SESSION_TIMEOUT_MS HEARTBEAT_INTERVAL_MS
       member_confluent_kafka.py BOOTSTRAP TOPIC GROUP consumer

The second one follows the group protocol of KIP-848, in which the broker sets the times.
"""

import signal
import sys

from confluent_kafka import Consumer, KafkaError, KafkaException


def main(bootstrap: str, topic: str, group: str, *protocol: str) -> None:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    if protocol == ("consumer",):
        settings: dict[str, str | int] = {"group.protocol": "consumer"}
    else:
        session_timeout_ms, heartbeat_interval_ms = map(int, protocol)
        settings = {"session.timeout.ms": session_timeout_ms, "heartbeat.interval.ms": heartbeat_interval_ms}
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **settings,
        }
    )
    consumer.subscribe([topic])
    # A rebalance may take what was read before it is committed; then somebody else reads it again.
    taken_away = {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
    while not stopping:
        records = []
        for record in consumer.consume(100, timeout=0.1):
            if record.error() is not None:
                # A group that changes its protocol sends away who waits for a rebalance, to join anew.
                if record.error().code() == KafkaError.REBALANCE_IN_PROGRESS:
                    continue
                raise SystemExit(str(record.error()))
            records.append(record)
            print(record.value().decode(), flush=True)
        if records:
            try:
                errors = [place.error for place in consumer.commit(asynchronous=False)]
            except KafkaException as exception:  # all of them had the same one
                errors = [exception.args[0]]
            for error in errors:
                if error is not None and error.code() not in taken_away:
                    raise SystemExit(str(error))
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
