"""What every command takes: where the log is, and how to talk to whoever called."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from streamcore.app import App

DATA_DEFAULT = "streamcore-data"
CLIENT_PREFIX = "STREAMCORE_CLIENT_"


@dataclass(slots=True)
class Settings:
    """The common options of one run; they may stand before or after the command's name."""

    data: str | None = None
    broker: str | None = None
    command_config: str | None = None
    json: bool = False
    debug: bool = False
    app: "App | None" = None  # the app whose own command line this is (`python app.py …`)

    def broker_given(self) -> str | None:
        """The URL that the caller named by option or environment; None when an app's own choice may hold."""
        if self.data is not None and self.broker is not None:
            raise click.UsageError("--data and --broker both say where the log is: give one of them.")
        if self.broker is not None:
            return self.broker
        if self.data is not None:
            return f"embedded:{self.data}"
        if os.environ.get("STREAMCORE_BROKER"):
            return os.environ["STREAMCORE_BROKER"]
        if os.environ.get("STREAMCORE_DATA"):
            return f"embedded:{os.environ['STREAMCORE_DATA']}"
        return None

    def url(self) -> str:
        """The transport URL that this run works on."""
        given = self.broker_given()
        if given is not None:
            return given
        return f"embedded:{DATA_DEFAULT}" if self.app is None else self.app.conf.broker

    def client(self) -> dict[str, str]:
        """Settings of TLS and login for a broker: the app's, then the file's, then the environment's.

        Raises:
            UsageError: a file that cannot be read.
        """
        from streamcore.transport.client_settings import client_settings

        path = self.command_config or os.environ.get("STREAMCORE_COMMAND_CONFIG", "")
        return {
            **client_settings("" if self.app is None else self.app.conf.broker_config),
            **client_settings(path),
            **{
                name.removeprefix(CLIENT_PREFIX).lower().replace("_", "."): value
                for name, value in os.environ.items()
                if name.startswith(CLIENT_PREFIX)
            },
        }


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    # An option that was not given must not undo the same option in the other place.
    if value is not None and value is not False and param.name is not None:
        setattr(ctx.ensure_object(Settings), param.name, value)


def common_parameters() -> list[click.Parameter]:
    """--data, --broker, --command-config, --json and --debug, which `Settings` keeps."""
    return [
        click.Option(
            ["--data"],
            metavar="DIR",
            expose_value=False,
            callback=_store,
            help=f"Directory of the log.  [default: ./{DATA_DEFAULT}; or $STREAMCORE_DATA]",
        ),
        click.Option(
            ["--broker"],
            metavar="URL",
            expose_value=False,
            callback=_store,
            help="URL of the log: embedded:DIR means --data DIR.  [or $STREAMCORE_BROKER]",
        ),
        click.Option(
            ["--command-config"],
            metavar="FILE",
            expose_value=False,
            callback=_store,
            help="Properties file for --broker kafka://…: security.protocol, sasl.*, ssl.*, as Kafka's tools take it."
            "  [or $STREAMCORE_COMMAND_CONFIG, or $STREAMCORE_CLIENT_SASL_PASSWORD and the like]",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            default=False,
            expose_value=False,
            callback=_store,
            help="Write JSON, for machines.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            default=False,
            expose_value=False,
            callback=_store,
            help="Show the traceback of an error.",
        ),
    ]
