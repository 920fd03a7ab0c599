"""What a broker says that it can."""

import asyncio
from pathlib import Path

import pytest

from streamcore.protocol import messages
from tests.broker.wire import Client, serving


@pytest.mark.parametrize(("version", "least"), [(3, 1), (4, 0)])
def test_features_are_told_as_far_as_a_client_can_read_them(tmp_path: Path, version: int, least: int) -> None:
    api = messages.ApiVersions

    async def run() -> None:
        async with serving(tmp_path) as server, Client.of(server) as client:
            request = api.Request(client_software_name="test", client_software_version="1")
            response = await client.ask(api, version, request)
            supported = {found.name: (found.min_version, found.max_version) for found in response.supported_features}
            assert supported["group.version"] == (least, 1)
            finalized = {
                found.name: (found.min_version_level, found.max_version_level) for found in response.finalized_features
            }
            assert finalized["group.version"] == (1, 1)
            assert response.finalized_features_epoch >= 0

    asyncio.run(run())
