"""How the command is told of TLS and logins, without a password on the command line."""

import asyncio
from pathlib import Path

import pytest

from streamcore import App
from streamcore.broker.config import BrokerConfig
from streamcore.cli.broker import _from_environment, _from_file
from streamcore.cli.settings import Settings
from tests.broker.wire import serving
from tests.cli.conftest import Run


def test_the_file_wins_over_the_app_and_the_environment_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=SSL\nssl.ca.location=/of/the/file\nssl.key.password=file\n")
    app = App("a", broker_config={"security.protocol": "PLAINTEXT", "sasl.username": "of-the-app"})
    monkeypatch.setenv("STREAMCORE_CLIENT_SSL_KEY_PASSWORD", "environment")
    expected = {
        "security.protocol": "SSL",
        "sasl.username": "of-the-app",
        "ssl.ca.location": "/of/the/file",
        "ssl.key.password": "environment",
    }
    assert Settings(app=app, command_config=str(file)).client() == expected
    monkeypatch.setenv("STREAMCORE_COMMAND_CONFIG", str(file))
    assert Settings(app=app).client() == expected


def test_a_command_logs_in_by_its_file_and_says_why_it_may_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\nsasl.username=alice\n")

    async def main() -> None:
        settings = {"security.protocol": "SASL_PLAINTEXT", "sasl.users.alice": "secret"}
        async with serving(tmp_path / "data", **settings) as server:
            url = f"kafka://127.0.0.1:{server.broker.endpoint.port}"
            options = ["--broker", url, "--command-config", str(file)]
            told = await asyncio.to_thread(run, "topics", "list", *options)
            assert (told.code, "needs sasl.username and sasl.password" in told.err) == (2, True)
            monkeypatch.setenv("STREAMCORE_CLIENT_SASL_PASSWORD", "wrong")
            told = await asyncio.to_thread(run, "topics", "list", *options)
            assert told.code == 1
            assert "refuses the login of 'alice' by SCRAM-SHA-256: invalid user or password" in told.err
            monkeypatch.setenv("STREAMCORE_CLIENT_SASL_PASSWORD", "secret")
            told = await asyncio.to_thread(run, "topics", "create", "greetings", *options)
            assert told.code == 0, told.err

    asyncio.run(main())


def test_a_file_that_is_not_there_is_told(run: Run) -> None:
    told = run("topics", "list", "--broker", "kafka://127.0.0.1:1", "--command-config", "nowhere.properties")
    assert told.code == 2
    assert "nowhere.properties cannot be read: No such file" in told.err


def test_a_brokers_users_come_from_its_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(
        """
security.protocol = "SASL_PLAINTEXT"
sasl.enabled.mechanisms = ["PLAIN", "SCRAM-SHA-512"]

[sasl.users]
alice = "a = 'secret'"
"first.last" = "other"
"""
    )
    monkeypatch.setenv("STREAMCORE_BROKER_SASL_USERS_BOB", "third")
    config = BrokerConfig.parse({**_from_file(file), **_from_environment()})
    assert config.sasl_users == {"alice": "a = 'secret'", "first.last": "other", "bob": "third"}
    assert config.sasl_enabled_mechanisms == ("PLAIN", "SCRAM-SHA-512")
    assert config.has_sasl
    assert not config.has_tls
