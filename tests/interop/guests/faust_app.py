"""A Faust app: an agent, a table and tumbling windows. python faust_app.py BOOTSTRAP NAME DIRECTORY"""

import sys

import faust

bootstrap, name, directory = sys.argv[1:]
app = faust.App(
    f"{name}-app",
    broker=f"kafka://{bootstrap}",
    store="memory://",
    datadir=directory,
    web_enabled=False,
    topic_partitions=4,
)


class Order(faust.Record):
    account: str
    number: int
    amount: int
    at: float


class Total(faust.Record):
    account: str
    number: int
    total: int
    minute: int


orders = app.topic(name, key_type=str, value_type=Order)
results = app.topic(f"{name}-results", key_type=str, value_type=Total)
totals = app.Table("totals", default=int)
minutes = app.Table("minutes", default=int).tumbling(60.0, expires=86400.0).relative_to_field(Order.at)


@app.agent(orders)
async def add_up(stream):
    async for order in stream:
        totals[order.account] += order.amount
        minutes[order.account] += order.amount
        total = Total(order.account, order.number, totals[order.account], minutes[order.account].value())
        await results.send(key=order.account, value=total)


faust.Worker(app, loglevel="info").execute_from_commandline()
