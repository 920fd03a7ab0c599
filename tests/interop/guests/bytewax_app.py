"""A Bytewax flow with state, over all that is there. python bytewax_app.py BOOTSTRAP NAME DIRECTORY"""

import json
import sys

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

bootstrap, name, _ = sys.argv[1:]


def add_up(known, order):
    total, minutes = known or (0, {})
    minute = order["at"] // 60
    total, minutes = total + order["amount"], {minute: minutes.get(minute, 0) + order["amount"]}
    result = {"account": order["account"], "number": order["number"], "total": total, "minute": minutes[minute]}
    return (total, minutes), result


flow = Dataflow("orders")
source = kop.input("orders", flow, brokers=[bootstrap], topics=[name], tail=False)
orders = op.map("decode", source.oks, lambda message: json.loads(message.value))
keyed = op.key_on("account", orders, lambda order: order["account"])
added = op.stateful_map("add up", keyed, add_up)
encoded = op.map("encode", added, lambda pair: KafkaSinkMessage(pair[0].encode(), json.dumps(pair[1]).encode()))
kop.output("results", encoded, brokers=[bootstrap], topic=f"{name}-results")
cli_main(flow)
