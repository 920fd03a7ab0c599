"""The newer group protocol over the wire, and over restarts of the broker."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

from streamcore.protocol import messages
from streamcore.protocol.error_codes import ErrorCode
from tests.broker.wire import Client, serving

HEARTBEAT, DESCRIBE = messages.ConsumerGroupHeartbeat, messages.ConsumerGroupDescribe


async def heartbeat(client: Client, member_id: str, epoch: int, **fields: Any) -> Any:
    request = {"group_id": "g", "member_id": member_id, "member_epoch": epoch}
    if epoch == 0:
        request |= {"rebalance_timeout_ms": 60_000, "subscribed_topic_names": ["t"], "topic_partitions": []}
    return await client.ask(HEARTBEAT, 1, HEARTBEAT.Request(**request, **fields))


def given(response: Any) -> list[tuple[UUID, list[int]]]:
    return [(topic.topic_id, list(topic.partitions)) for topic in response.assignment.topic_partitions]


def test_a_member_joins_is_described_and_found_again_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path) as server, Client.of(server) as client:
            topic_id = server.broker.node.create_topic("t", 2, {}).topic_id
            joined = await heartbeat(client, "a", 0, instance_id="i")
            assert (joined.error_code, joined.member_epoch, given(joined)) == (0, 1, [(topic_id, [0, 1])])
            before = await client.ask(DESCRIBE, 1, DESCRIBE.Request(group_ids=["g"]))
            (member,) = before.groups[0].members
            assert (member.client_host, member.client_id, member.member_type) == ("/127.0.0.1", "test", 1)
            (topic,) = member.assignment.topic_partitions
            assert (topic.topic_name, topic.partitions) == ("t", [0, 1])
            assert before.groups[0].group_state == "Stable"
        async with serving(tmp_path) as server, Client.of(server) as client:
            after = await client.ask(DESCRIBE, 1, DESCRIBE.Request(group_ids=["g"]))
            assert after == before
            server.broker.node.add_partitions("t", 3)
            assert given(await heartbeat(client, "a", 1)) == [(topic_id, [0, 1, 2])]
            server.broker.node.delete_topic("t")
            assert given(await heartbeat(client, "a", 2)) == []
            described = await client.ask(DESCRIBE, 0, DESCRIBE.Request(group_ids=["g"]))
            assert described.groups[0].members[0].assignment.topic_partitions == []

    asyncio.run(run())


def test_the_settings_are_what_the_broker_was_started_with(tmp_path: Path) -> None:
    async def run() -> None:
        settings = {
            "group_consumer_heartbeat_interval_ms": 6000,
            "group_consumer_max_size": 1,
            "group_consumer_assignors": "range",
        }
        async with serving(tmp_path, **settings) as server, Client.of(server) as client:
            assert (await heartbeat(client, "a", 0)).heartbeat_interval_ms == 6000
            assert (await heartbeat(client, "b", 0)).error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
            refused = await heartbeat(client, "a", 1, server_assignor="uniform")
            assert refused.error_code == ErrorCode.UNSUPPORTED_ASSIGNOR
            described = await client.ask(DESCRIBE, 1, DESCRIBE.Request(group_ids=["g"]))
            assert described.groups[0].assignor_name == "range"

    asyncio.run(run())
