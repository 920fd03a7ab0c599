"""A group member with confluent-kafka: prints each value, then commits; SIGTERM makes it leave.

usage: member_confluent_kafka.py BOOTSTRAP TOPIC GROUP SESSION_TIMEOUT_MS HEARTBEAT_INTERVAL_MS
"""

import signal
import sys

from confluent_kafka import Consumer, KafkaError


def main(bootstrap: str, topic: str, group: str, session_timeout_ms: str, heartbeat_interval_ms: str) -> None:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": int(session_timeout_ms),
            "heartbeat.interval.ms": int(heartbeat_interval_ms),
        }
    )
    consumer.subscribe([topic])
    # A rebalance may take what was read before it is committed; then somebody else reads it again.
    taken_away = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
    while not stopping:
        records = consumer.consume(100, timeout=0.1)
        for record in records:
            if record.error() is not None:
                raise SystemExit(str(record.error()))
            print(record.value().decode(), flush=True)
        if records:
            for place in consumer.commit(asynchronous=False):
                if place.error is not None and place.error.code() not in taken_away:
                    raise SystemExit(str(place.error))
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
