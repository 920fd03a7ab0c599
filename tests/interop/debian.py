"""Programs of Debian packages, unpacked beside the system: nothing is installed, no service starts."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.interop.kafka_jars import missing

_SECONDS_MAX: Final = 180


def unpacked(directory: Path, *packages: str) -> Path:
    """The root of a tree with the files of these packages.

    Args:
        packages: with the libraries that may not be there; a library that is there already does no harm.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        missing(f"apt-get is not here, which fetches {', '.join(packages)}")
    if failure := _download(directory, packages):
        # The lists of packages may be older than the packages, or not there at all.
        if os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, timeout=_SECONDS_MAX, check=False)
            failure = _download(directory, packages)
        if failure:
            missing(f"`apt-get download {' '.join(packages)}` failed: {failure[-300:]}")
    root = directory / "root"
    for archive in directory.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
    return root


def _download(directory: Path, packages: tuple[str, ...]) -> str:
    """What went wrong, or nothing."""
    command = ["apt-get", "download", *packages]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)
    return done.stderr.strip() or "no reason given" if done.returncode else ""


def library_environment(root: Path) -> dict[str, str]:
    """What the programs need to find their libraries."""
    libraries = [str(path) for path in root.glob("usr/lib/*-linux-gnu*")]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
