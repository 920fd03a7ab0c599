"""A Quix Streams app with state, at least once. python quix_app.py BOOTSTRAP NAME DIRECTORY"""

import sys

from quixstreams import Application

bootstrap, name, directory = sys.argv[1:]
app = Application(
    broker_address=bootstrap,
    consumer_group=f"{name}-app",
    auto_offset_reset="earliest",
    processing_guarantee="at-least-once",
    state_dir=directory,
    commit_interval=0.5,
)
orders = app.topic(name, key_deserializer="str", value_deserializer="json")
results = app.topic(f"{name}-results", key_serializer="str", value_serializer="json")


def add_up(order, state):
    minute = f"{order['account']} {order['at'] // 60}"
    total, in_minute = state.get("total", 0) + order["amount"], state.get(minute, 0) + order["amount"]
    state.set("total", total)
    state.set(minute, in_minute)
    return {"account": order["account"], "number": order["number"], "total": total, "minute": in_minute}


app.dataframe(orders).apply(add_up, stateful=True).to_topic(results)
app.run()
