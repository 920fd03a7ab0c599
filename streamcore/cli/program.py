"""The `streamcore` program: its commands, loaded on use, and what happens when one of them fails."""

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from streamcore.cli.commands import Commands
from streamcore.cli.problems import ExitCode, forget_stdout, report
from streamcore.cli.settings import Settings

if TYPE_CHECKING:
    from streamcore.app import App

# Command -> (module in streamcore.cli, attribute in it), in the order of the help text: from first steps to repair.
COMMANDS = {
    "demo": ("demo", "demo"),
    "worker": ("worker", "worker"),
    "broker": ("broker", "broker"),
    "topics": ("topics", "topics"),
    "produce": ("produce", "produce"),
    "consume": ("consume", "consume"),
    "groups": ("groups", "groups"),
    "tables": ("tables", "tables"),
    "dump": ("dump", "dump"),
}
# What has nothing to do with the one app whose command line it would stand in.
NOT_OF_AN_APP = ("demo", "broker")


class Program(Commands):
    """The outermost group: imports a command when it is asked for and reports whatever goes wrong."""

    def __init__(self, app: "App | None" = None, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.app = app

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if self.app is None or name not in NOT_OF_AN_APP]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        module, attribute = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(f"streamcore.cli.{module}"), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"]:  # as other programs have it: `streamcore help topics create`
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        # Here and not in `main`, where click has ways of its own with these two: an empty line, exit code 1.
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            forget_stdout()
            raise click.exceptions.Exit(ExitCode.BROKEN_PIPE) from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        settings = Settings(app=self.app)
        # --debug counts wherever it stands, also when the rest cannot be parsed.
        settings.debug = "--debug" in (sys.argv[1:] if args is None else args)
        settings.json = "--json" in (sys.argv[1:] if args is None else args)
        try:
            result = super().main(
                args=args, prog_name=prog_name, complete_var=complete_var, standalone_mode=False, obj=settings, **extra
            )
            # Without standalone mode, ctx.exit(code) comes back as the result.
            code: int = result if isinstance(result, int) else ExitCode.DONE
        except BaseException as error:
            if isinstance(error, SystemExit):
                raise
            code = report(error, settings)
        sys.exit(int(code))


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"streamcore {version('streamcore')}, Python {sys.version.split()[0]}")
        ctx.exit()


def _program(app: "App | None", help_text: str) -> Program:
    return Program(
        app=app,
        name="streamcore" if app is None else app.id,
        help=help_text,
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_version,
                help="Show the version and exit.",
            )
        ],
    )


PROGRAM = _program(
    None,
    """Stream processing over a partitioned log that lives in a directory.

    \b
    First steps:
      streamcore demo                              this machine's health, live, with a dashboard
      streamcore topics create greetings           make a topic
      streamcore produce greetings hello           write a record
      streamcore consume greetings                 read what is there
      streamcore worker -A health                  run the app in health.py

    Where a worker or a broker has the data directory open, these commands reach its log through it. A worker has
    pages of its own too (http://localhost:6066).
    """,
)


def program_for(app: "App") -> Program:
    """The command line of one app: the same commands without -A, on the app's own log."""
    return _program(app, f"Run the app '{app.id}', or look at its topics, groups and tables.")
