"""Finding the app that `-A` names: `module`, `module:app`, or a path to the file."""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from streamcore.cli.problems import CommandError, did_you_mean
from streamcore.errors import StreamcoreError

if TYPE_CHECKING:
    from streamcore.app import App


def find_app(spec: str) -> "App":
    """The app that `spec` names; its module is imported, with the current directory on the path.

    Raises:
        click.ClickException: no such module, it fails to import, or it has no app or several.
    """
    from streamcore.app import App

    module_name, attribute = _split(spec)
    if module_name.endswith(".py") or "/" in module_name:
        module_name = _module_of_path(Path(module_name))
    elif "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _import(module_name)
    if attribute:
        return _named_app(module, attribute, App)
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if isinstance(apps.get("app"), App) or len({id(app) for app in apps.values()}) == 1:
        return apps.get("app") or next(iter(apps.values()))
    if apps:
        example = f"-A {module_name}:{next(iter(apps))}"
        raise click.UsageError(f"{_where(module)} has several apps: {', '.join(apps)}. Choose one, e.g. {example}.")
    raise click.UsageError(f'{_where(module)} has no app: define one there, app = streamcore.App("my-app").')


def _split(spec: str) -> tuple[str, str]:
    module_name, _, attribute = spec.partition(":")
    if not module_name:
        raise click.UsageError(f"-A takes a module, module:app or a path to a file, not '{spec}'.")
    return module_name, attribute


def _module_of_path(path: Path) -> str:
    """The dotted name of a file, as its package imports it; the directory above the package joins the path."""
    if path.suffix != ".py" and (path / "__init__.py").exists():
        path = path / "__init__.py"
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path()
        names = [str(folder / file.name) for file in folder.glob("*.py")]
        raise click.UsageError(f"There is no file {path}.{did_you_mean(str(path), names)}")
    path = path.resolve()
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    if not all(part.isidentifier() for part in parts):
        raise click.UsageError(f"{path.name} cannot be imported: a module's name has only letters, digits and '_'.")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return ".".join(parts)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            hint = did_you_mean(missing, _modules_here()) or " Start in its directory, or give the path to its file."
            raise click.UsageError(f"There is no module '{missing}' here ({Path.cwd()}).{hint}") from None
        remedy = "pip install it, or check its name"
        raise CommandError(
            f"'{name}' cannot be imported: it needs '{missing}', which is not there: {remedy}."
        ) from error
    except (StreamcoreError, click.ClickException):
        raise
    except SyntaxError as error:
        raise CommandError(
            f"'{name}' cannot be imported: {error.msg} ({error.filename}, line {error.lineno})."
        ) from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise CommandError(
            f"'{name}' cannot be imported: {type(error).__name__}: {error}"
            f" ({frame.filename}, line {frame.lineno}); --debug shows the traceback."
        ) from error


def _modules_here() -> list[str]:
    here = Path.cwd()
    return [file.stem for file in here.glob("*.py")] + [folder.parent.name for folder in here.glob("*/__init__.py")]


def _named_app(module: ModuleType, attribute: str, app_class: "type[App]") -> "App":
    value = getattr(module, attribute, None)
    if isinstance(value, app_class):
        return value
    apps = [name for name, other in vars(module).items() if isinstance(other, app_class)]
    if value is not None:
        there = f" Its apps: {', '.join(apps)}." if apps else ""
        raise click.UsageError(f"'{attribute}' in {_where(module)} is a {type(value).__name__}, not an App.{there}")
    hint = did_you_mean(attribute, apps) or (f" Its apps: {', '.join(apps)}." if apps else "")
    raise click.UsageError(f"{_where(module)} has no '{attribute}'.{hint}")


def _where(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return Path(file).name if file else f"module '{module.__name__}'"
