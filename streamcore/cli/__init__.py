"""The `streamcore` command.

One file per command (or family: topics, groups, tables); `program.py` ties them together and turns every error into
one sentence with an exit code. Commands are loaded when they are used, so that `streamcore --help` stays quick.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from streamcore.app import App


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the `streamcore` command and exit; `args` are the process's own by default."""
    try:
        from streamcore.cli.program import PROGRAM
    except KeyboardInterrupt:  # Ctrl-C may be quick, and is no reason for a traceback
        raise SystemExit(130) from None

    PROGRAM.main(args=None if args is None else list(args))


def main_for(app: "App", args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line of one app, as `python app.py worker` does, and exit.

    Args:
        app: the `streamcore.App` that commands without `-A` work on.
        args: the arguments after the script's name; the process's own by default.
    """
    from streamcore.cli.program import program_for

    program_for(app).main(args=None if args is None else list(args))
