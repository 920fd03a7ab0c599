"""The cluster's pages over real groups: of confluent-kafka's consumers, on our broker and on Apache Kafka."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from confluent_kafka import Consumer, Producer
from playwright.sync_api import Browser, Page, expect

from streamcore.app import App
from tests.interop import apache_kafka
from tests.interop.cluster import Cluster, free_ports, fresh, until
from tests.interop.our_broker import our_broker
from tests.interop.topics import create_topic
from tests.web.conftest import browser  # noqa: F401 - a fixture
from tests.web.test_browser import Watch

pytestmark = pytest.mark.interop
PARTITIONS = 4


@contextmanager
def a_worker(cluster: Cluster, data: Path) -> Iterator[str]:
    """The address of the pages of a worker without agents on this cluster."""
    (port,) = free_ports(1)
    app = App(fresh("pages"), broker=f"kafka://{cluster.bootstrap}", web_port=port, datadir=str(data))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="worker")
    thread.start()

    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def make() -> Any:
        return app.worker()

    worker = wait(make())
    try:
        wait(worker.start())
        yield f"http://127.0.0.1:{port}"
    finally:
        wait(worker.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def consumers(cluster: Cluster, topic: str, group: str, **settings: Any) -> Iterator[list[Consumer]]:
    """Two of a group that share the topic's partitions and have committed one record of partition 0."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for partition in range(PARTITIONS):
        for number in range(5):
            producer.produce(topic, f"{number}", partition=partition)
    assert producer.flush(30) == 0
    made = [
        Consumer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": group,
                "client.id": f"reader-{number}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                **settings,
            }
        )
        for number in range(2)
    ]
    try:
        for consumer in made:
            consumer.subscribe([topic])

        def have_all() -> bool:
            for consumer in made:
                consumer.poll(0.05)
            return [len(consumer.assignment()) for consumer in made] == [PARTITIONS // 2] * 2

        until(have_all, what="the two share the partitions")
        from confluent_kafka import TopicPartition

        (owner,) = (c for c in made if any(tp.partition == 0 for tp in c.assignment()))
        owner.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
        yield made
    finally:
        for consumer in made:
            consumer.close()


def described(base: str, group: str) -> dict[str, Any]:
    answer = httpx.get(f"{base}/api/cluster/group", params={"name": group}, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def check_group(found: dict[str, Any], topic: str) -> None:
    assert (found["state"], found["coordinator"], found["members"]) == ("Stable", 1, 2)
    assert [row["client_id"] for row in found["member_rows"]] == ["reader-0", "reader-1"]
    shares = [row["assigned"][topic] for row in found["member_rows"]]
    assert sorted(shares[0] + shares[1]) == list(range(PARTITIONS))
    assert [row["host"] for row in found["member_rows"]] == ["127.0.0.1"] * 2
    first, *others = found["partition_rows"]
    assert (first["committed_offset"], first["log_end_offset"], first["lag"]) == (2, 5, 3)
    assert 0 < first["lag_ms"] < 600_000
    assert [row["committed_offset"] for row in others] == [None] * (PARTITIONS - 1)
    readers = {row["member_id"]: row["assigned"][topic] for row in found["member_rows"]}
    assert all(row["partition"] in readers[row["member_id"]] for row in found["partition_rows"])


@pytest.mark.parametrize("assignor", ["range", "cooperative-sticky"])
def test_a_group_of_real_consumers_is_shown_as_it_is(cluster: Cluster, tmp_path: Path, assignor: str) -> None:
    topic, group = fresh("shown"), fresh("readers / ä")
    create_topic(cluster, topic, PARTITIONS)
    settings = {"partition.assignment.strategy": assignor}
    with a_worker(cluster, tmp_path) as base, consumers(cluster, topic, group, **settings):
        found = until(lambda: (d := described(base, group))["state"] == "Stable" and d, what="a stable group")
        check_group(found, topic)
        assert (found["type"], found["assignor"]) == ("classic", assignor)
        rows = httpx.get(f"{base}/api/cluster/groups", params={"search": group}, timeout=30).json()["rows"]
        assert [(row["group"], row["lag"], row["members"]) for row in rows] == [(group, 3, 2)]
        partitions = httpx.get(f"{base}/api/cluster/partitions", params={"search": topic}, timeout=30).json()["rows"]
        for number, row in enumerate(partitions):
            assert (row["partition"], row["leader"], row["replicas"], row["in_sync"]) == (number, 1, [1], [1])
            assert (row["log_start_offset"], row["log_end_offset"], row["offline"]) == (0, 5, None)
            assert row["size_bytes"] > 0
        overview = httpx.get(f"{base}/api/cluster", timeout=30).json()
        assert [(node["node_id"], node["port"], node["problem"]) for node in overview["nodes"]] == [
            (1, cluster.address[1], None)
        ]
        assert overview["connections"] is None  # over the wire nobody tells


def test_a_group_of_the_new_protocol_is_shown_too(cluster: Cluster, tmp_path: Path) -> None:
    if cluster.name != apache_kafka.NAME:
        pytest.skip("our broker serves classic groups only")
    topic, group = fresh("shown"), fresh("readers")
    create_topic(cluster, topic, PARTITIONS)
    settings = {"group.protocol": "consumer"}
    with a_worker(cluster, tmp_path) as base, consumers(cluster, topic, group, **settings):
        found = until(lambda: (d := described(base, group))["state"] == "Stable" and d, what="a stable group")
        check_group(found, topic)
        assert (found["type"], found["assignor"]) == ("consumer", "uniform")


def taken(page: Page, path: Path) -> None:
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 10_000
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path.name


@pytest.mark.parametrize("width", [1380, 390])
def test_the_pages_look_right_over_a_real_cluster(
    cluster: Cluster,
    tmp_path: Path,
    browser: Browser,  # noqa: F811
    width: int,
) -> None:
    topic, group = fresh("a-topic-whose-name-goes-on-and-on-and-on"), fresh("readers")
    create_topic(cluster, topic, PARTITIONS)
    with a_worker(cluster, tmp_path / "worker") as base, consumers(cluster, topic, group):
        context = browser.new_context(base_url=base, viewport={"width": width, "height": 900}, color_scheme="light")
        page = context.new_page()
        watch = Watch(page, base)
        page.goto("/cluster")
        expect(page.locator("section[aria-label='Groups']")).to_contain_text(group)
        expect(page.locator("main")).to_contain_text("This cluster does not tell")
        taken(page, tmp_path / f"cluster-{cluster.name}-{width}.png")
        page.goto(f"/groups/{quote(group, safe='')}")
        expect(page.locator("section[aria-label='Members'] tbody tr")).to_have_count(2)
        expect(page.locator("section[aria-label='Partitions'] tbody tr")).to_have_count(PARTITIONS)
        taken(page, tmp_path / f"group-{cluster.name}-{width}.png")
        assert watch.complaints == []
        context.close()


def test_a_brokers_own_pages_list_its_connections_and_its_metrics(tmp_path: Path, browser: Browser) -> None:  # noqa: F811
    (port,) = free_ports(1)
    (tmp_path / "data").mkdir()
    base = f"http://127.0.0.1:{port}"
    with our_broker(tmp_path / "data", "--web-port", str(port)) as broker:
        create_topic(broker, "clicks", PARTITIONS)
        with consumers(broker, "clicks", "readers"):
            check_group(described(base, "readers"), "clicks")
            connections = httpx.get(f"{base}/api/cluster/connections?search=reader-0").json()["rows"]
            assert connections
            assert all(row["software"].startswith("confluent-kafka-python ") for row in connections)
            assert all(row["requests"] > 0 and row["bytes_in"] > 0 for row in connections)
            metrics = httpx.get(f"{base}/metrics").text
            assert 'streamcore_broker_groups{state="Stable"} 1.0' in metrics
            assert "streamcore_broker_group_members 2.0" in metrics
            assert f'streamcore_log_records_in_total{{topic="clicks"}} {PARTITIONS * 5}.0' in metrics
            assert httpx.get(f"{base}/healthz").json() == {"healthy": True, "reason": "ok"}
            for width in (1380, 390):
                context = browser.new_context(base_url=base, viewport={"width": width, "height": 900})
                page = context.new_page()
                watch = Watch(page, base)
                page.goto("/")
                expect(page.locator("section[aria-label='Connections'] tbody tr").first).to_be_visible()
                taken(page, tmp_path / f"broker-{width}.png")
                assert watch.complaints == []
                context.close()
