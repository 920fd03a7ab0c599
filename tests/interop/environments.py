"""Python programs with packages of their own: an environment each, made once and kept outside the repository."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.interop.kafka_jars import CACHE, missing

_INSTALL_SECONDS_MAX: Final = 300


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment in which these packages are installed, from PyPI if they are not yet.

    Args:
        requirements: with their versions, so that the environment of today is the one of tomorrow.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(repr((version, sorted(requirements))).encode()).hexdigest()[:12]
    home = CACHE / f"{name}-{digest}"
    python, complete = home / "bin" / "python", home / "complete"
    if not complete.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(home)], name)
        _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements], name)
        complete.touch()
    return python


def source_of(requirement: str) -> Path:
    """The source distribution of a package, unpacked (`kafka-python==3.0.12`), from PyPI if it is not there yet."""
    home = CACHE / "sources" / requirement.replace("==", "-")
    complete = home / "complete"
    if not complete.exists():
        home.mkdir(parents=True, exist_ok=True)
        package = requirement.split("==", maxsplit=1)[0]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        _run([*pip, "--no-binary", package, "-d", str(home), requirement], requirement)
        (archive,) = home.glob("*.tar.gz")
        _run(["tar", "-xzf", str(archive), "-C", str(home)], requirement)
        complete.touch()
    (unpacked,) = (path for path in home.iterdir() if path.is_dir())
    return unpacked


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS_MAX, check=False)
    if done.returncode:
        missing(f"{what} could not be installed:\n{(done.stdout + done.stderr)[-2000:]}")
