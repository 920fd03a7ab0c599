"""The click classes of every command and group: common options, and typos answered with what was probably meant."""

from typing import Any

import click

from streamcore.cli.problems import did_you_mean
from streamcore.cli.settings import common_parameters

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(click.Command):
    """A command that also takes the common options."""

    def __init__(self, name: str | None = None, **attrs: Any) -> None:
        attrs["params"] = [*(attrs.get("params") or []), *common_parameters()]
        attrs["context_settings"] = {**CONTEXT_SETTINGS, **(attrs.get("context_settings") or {})}
        super().__init__(name, **attrs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # A command's own complaint leads to its own help, as the parser's does.
            error.ctx = error.ctx or ctx
            raise


class Commands(click.Group):
    """A group that answers a typo with the name that was probably meant."""

    command_class = Command

    def __init__(self, name: str | None = None, **attrs: Any) -> None:
        attrs["params"] = [*(attrs.get("params") or []), *common_parameters()]
        attrs["context_settings"] = {**CONTEXT_SETTINGS, **(attrs.get("context_settings") or {})}
        attrs.setdefault("no_args_is_help", True)
        super().__init__(name, **attrs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of their definition

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            names = self.list_commands(ctx)
            known = "" if did_you_mean(name, names) else f" There are: {', '.join(names)}."
            ctx.fail(f"No such command '{name}'.{did_you_mean(name, names)}{known}")
        return super().resolve_command(ctx, args)
