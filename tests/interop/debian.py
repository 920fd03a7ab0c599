"""Programs of Debian packages, unpacked beside the system: nothing is installed, no service starts."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.interop.kafka_jars import missing

_DOWNLOAD_SECONDS_MAX: Final = 180


def unpacked(directory: Path, *packages: str) -> Path:
    """The root of a tree with the files of these packages.

    Args:
        packages: with the libraries that may not be there; a library that is there already does no harm.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        missing(f"apt-get is not here, which fetches {', '.join(packages)}")
    fetched = subprocess.run(
        ["apt-get", "download", *packages],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=_DOWNLOAD_SECONDS_MAX,
        check=False,
    )
    if fetched.returncode:
        missing(f"`apt-get download {' '.join(packages)}` failed: {fetched.stderr.strip()[-300:]}")
    root = directory / "root"
    for archive in directory.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
    return root


def library_environment(root: Path) -> dict[str, str]:
    """What the programs need to find their libraries."""
    libraries = [str(path) for path in root.glob("usr/lib/*-linux-gnu*")]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
