"""The cluster as the page asks for it: in pages that say how many there are, and in time."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from streamcore.app import App
from streamcore.clock import SYSTEM_CLOCK, ManualClock
from streamcore.engine.log_status import LogStatus
from streamcore.errors import BrokerUnreachableError
from streamcore.transport.base import Committed
from streamcore.transport.embedded import EmbeddedTransport
from streamcore.types import TP
from streamcore.web.broker_site import BrokerSite
from streamcore.web.server import create_web
from tests.web.asgi_client import Client
from tests.web.fake_cluster import CONNECTIONS, GROUPS, HOSTILE_GROUP, MEMBERS, NEWER_GROUP, FakeTransport
from tests.web.fake_worker import FakeWorker


def client_of(transport: Any) -> Client:
    worker = FakeWorker(ManualClock())
    worker.log_status = LogStatus(transport, worker.clock)
    return Client(create_web(worker, clock=worker.clock))


@pytest.fixture
def client() -> Client:
    return client_of(FakeTransport(ManualClock()))


def test_nodes_say_what_they_are_and_which_one_is_down(client: Client) -> None:
    found = client.get("/api/cluster").json()
    first, second, third = found["nodes"]
    assert (first["node_id"], first["rack"], first["version"], first["leads"]) == (1, "rack-a", "streamcore 0.1.0", 508)
    assert (second["rack"], second["replicas"], second["size_bytes"]) == (None, 500, 500 * 143_000)
    assert "it does not answer" in third["problem"]
    assert (found["controller_id"], found["cluster_id"]) == (1, "a-cluster")
    assert (found["partitions"], found["topics"], found["offline"], found["under_replicated"]) == (1016, 3, 1, 1016)
    assert found["connections"] == CONNECTIONS
    assert found["groups_by_state"] == {"Empty": 1, "Stable": len(GROUPS) - 1}


def test_partitions_come_in_pages_that_leave_none_out(client: Client) -> None:
    seen = []
    while True:
        page = client.get(f"/api/cluster/partitions?search=EVENTS&from={len(seen)}&count=170").json()
        if not page["rows"]:
            break
        seen += page["rows"]
    assert page["total"] == 1000
    assert [row["partition"] for row in seen] == list(range(1000))
    assert seen[7] | {"rate": None} == {
        "topic": "events", "partition": 7, "leader": 2, "leader_epoch": -1, "replicas": [1, 2, 3], "in_sync": [1, 2],
        "log_start_offset": 0, "log_end_offset": 1000, "size_bytes": 143_000, "rate": None, "offline": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("order", "first"), [("requests", 49_999), ("newest", 40_000), ("in_flight", 40_002), ("bytes", 49_999)]
)
def test_connections_are_ordered_and_found(client: Client, order: str, first: int) -> None:
    page = client.get(f"/api/cluster/connections?order={order}&count=5").json()
    assert (page["total"], len(page["rows"]), page["rows"][0]["port"]) == (CONNECTIONS, 5, first)
    found = client.get("/api/cluster/connections?search=10.0.39.249").json()
    assert [row["port"] for row in found["rows"]] == [49_999]


@pytest.mark.parametrize(
    "path",
    [
        "/api/cluster/connections?order=beauty",
        "/api/cluster/partitions?from=-1",
        "/api/cluster/partitions?count=100000",
        "/api/cluster/groups?count=51",
        "/api/cluster/partitions?search=" + 201 * "x",
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_bounds(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_cluster_that_does_not_tell_its_connections_is_not_one_without() -> None:
    client = client_of(FakeTransport(ManualClock(), tells=False))
    assert client.get("/api/cluster/connections").json()["total"] is None
    assert client.get("/api/cluster").json()["connections"] is None
    assert client.get("/api/cluster").json()["nodes"][0]["version"] == "metadata.version 27"


def test_groups_are_listed_with_their_lag(client: Client) -> None:
    page = client.get("/api/cluster/groups?search=billing").json()
    (row,) = page["rows"]
    assert (page["total"], row["state"], row["assignor"], row["coordinator"]) == (1, "Stable", "cooperative-sticky", 1)
    assert (row["members"], row["partitions"], row["uncommitted"]) == (MEMBERS, 1000, 100)
    assert row["lag"] == sum(p % 7 for p in range(900))
    assert row["lag_ms"] == 3 * 3_600_000
    idle = client.get("/api/cluster/groups?search=idle").json()["rows"][0]
    assert (idle["state"], idle["members"], idle["lag"], idle["lag_ms"]) == ("Empty", 0, 0, 0)


def test_what_is_not_looked_up_yet_is_counted_and_looked_up_next_time(client: Client) -> None:
    path = f"/api/cluster/group?name={'billing'}"
    first, second = client.get(path).json(), client.get(path).json()
    assert first["lag_ms_unknown"] == 271  # 771 are behind; 500 are looked up in a round
    assert second["lag_ms_unknown"] == 0


def test_a_group_is_described_by_member_and_partition(client: Client) -> None:
    from urllib.parse import quote

    path = f"/api/cluster/group?name={quote(HOSTILE_GROUP, safe='')}&members_from=30&partitions_from=895&count=20"
    found = client.get(path).json()
    assert found["group"] == HOSTILE_GROUP
    assert len(found["member_rows"]) == MEMBERS - 30
    member = found["member_rows"][-1]
    assert (member["client_id"], member["host"], member["topics"]) == ("reader-39", "10.1.0.39", ["events"])
    assert member["assigned"] == {"events": list(range(975, 1000))}
    assert [row["partition"] for row in found["partition_rows"]] == list(range(895, 915))
    assert found["partition_rows"][5] == {
        "topic": "events", "partition": 900, "committed_offset": None, "log_end_offset": 1000, "lag": None,
        "lag_ms": None, "member_id": found["partition_rows"][5]["member_id"], "client_id": "reader-36",
    }  # fmt: skip


def test_a_group_of_the_newer_protocol_shows_epochs_and_who_shall_have_what(client: Client) -> None:
    found = client.get(f"/api/cluster/group?name={NEWER_GROUP}").json()
    assert (found["state"], found["type"], found["assignor"], found["epoch"]) == (
        "Reconciling", "consumer", "uniform", 5,
    )  # fmt: skip
    first, second = found["member_rows"]
    assert (first["epoch"], first["topics"], first["topic_regex"]) == (5, ["events"], "ev.*")
    assert (first["assigned"], first["target"]) == ({"events": [0, 1]}, {"events": [0, 1, 2]})
    assert (second["epoch"], second["assigned"], second["target"]) == (4, {"events": [2, 3]}, {"events": [3]})
    classic = client.get("/api/cluster/group?name=billing").json()
    assert (classic["epoch"], classic["member_rows"][0]["epoch"], classic["member_rows"][0]["target"]) == (
        None, None, None,
    )  # fmt: skip


def test_a_group_that_is_not_there_is_404(client: Client) -> None:
    answer = client.get("/api/cluster/group?name=nobody")
    assert (answer.status_code, answer.json()["error"]) == (404, "there is no group 'nobody'")


def test_a_cluster_that_is_away_is_said_to_be_so() -> None:
    transport = FakeTransport(ManualClock())
    transport.asker.problem = BrokerUnreachableError("no broker at 10.0.0.1:9092: it does not answer.")
    answer = client_of(transport).get("/api/cluster")
    assert (answer.status_code, answer.json()["error"]) == (503, "no broker at 10.0.0.1:9092: it does not answer.")


def test_one_look_serves_everybody_who_asks_at_the_same_time() -> None:
    transport = FakeTransport(ManualClock())
    worker = FakeWorker(ManualClock())
    worker.log_status = LogStatus(transport, worker.clock)  # type: ignore[arg-type]
    web = create_web(worker, clock=worker.clock)

    async def main() -> None:
        import httpx

        async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://testserver") as client:
            answers = await asyncio.gather(*(client.get("/api/cluster") for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}

    asyncio.run(main())
    # Metadata, versions and sizes of the nodes that are up, versions of the one that is not, two lists of groups.
    assert transport.asker.asked == 1 + 2 * 2 + 1 + 2


def test_a_log_of_one_process_has_offsets_and_nobody_else() -> None:
    client = client_of(FakeTransport(ManualClock(), private=True))
    found = client.get("/api/cluster").json()
    assert (found["is_private"], found["nodes"], found["connections"]) == (True, [], None)
    row = client.get("/api/cluster/groups?search=billing").json()["rows"][0]
    assert (row["state"], row["members"], row["problem"]) == ("", 0, None)
    assert row["lag"] > 0
    assert client.get("/api/cluster/partitions?search=alarms").json()["rows"][0]["leader"] is None


def test_a_broker_serves_its_own_pages_metrics_and_probes(tmp_path: Path) -> None:
    async def main() -> None:
        import httpx

        transport = EmbeddedTransport(str(tmp_path / "data"))
        await transport.start()
        endpoint = await transport.listen("127.0.0.1", 0)
        assert endpoint is not None
        try:
            await transport.create_topic("clicks", partitions=2)
            await transport.produce({TP("clicks", 0): [(b"k", b"v", 1_700_000_000_000, ())] * 3})
            await transport.commit("readers", {TP("clicks", 0): Committed(1)})
            web = create_web(BrokerSite(transport, SYSTEM_CLOCK), clock=SYSTEM_CLOCK)
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://testserver") as client:
                for path in ("/", "/cluster", "/topics", "/topics/clicks/0", "/groups", "/groups/readers"):
                    assert (await client.get(path)).status_code == 200
                for path in ("/agents", "/tables", "/why"):
                    assert (await client.get(path)).status_code == 404
                assert (await client.get("/healthz")).json() == {"healthy": True, "reason": "ok"}
                assert (await client.get("/readyz")).status_code == 200
                assert 'streamcore_log_records_in_total{topic="clicks"} 3.0' in (await client.get("/metrics")).text
                status = (await client.get("/api/status")).json()
                assert (status["summary"]["text"], status["agents"]) == ("running", [])
                records = (await client.get("/api/topics/clicks/0/records")).json()["records"]
                assert [record["value"]["text"] for record in records] == ["v"] * 3
                found = (await client.get("/api/cluster")).json()
                assert [node["port"] for node in found["nodes"]] == [endpoint.port]
                assert found["nodes"][0]["version"].startswith("streamcore ")
                assert found["connections"] == 1
                group = (await client.get("/api/cluster/group?name=readers")).json()
                assert (group["state"], group["lag"], group["partition_rows"][0]["lag"]) == ("Empty", 2, 2)
                assert group["lag_ms"] > 0
            writer.close()
            await writer.wait_closed()
        finally:
            await transport.stop()

    asyncio.run(main())


def test_a_worker_with_the_log_in_its_process_exports_the_brokers_part_too(tmp_path: Path) -> None:
    async def main() -> str:
        import httpx

        app = App("exporting", broker=f"embedded:{tmp_path / 'data'}", web_port=0, listen_port=0)
        worker = app.worker()
        await worker.start()
        try:
            web = create_web(worker, clock=SYSTEM_CLOCK)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://testserver") as client:
                found = (await client.get("/api/cluster")).json()
                assert [node["node_id"] for node in found["nodes"]] == [1]
                return (await client.get("/metrics")).text
        finally:
            await worker.stop()

    text = asyncio.run(main())
    assert "streamcore_commit_seconds_count 0.0" in text
    assert "streamcore_broker_connections 0.0" in text
    assert "streamcore_log_partitions " in text
