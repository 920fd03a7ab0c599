"""Certificates that a test makes for itself, with the `openssl` command."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.interop.kafka_jars import missing


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files in one directory."""

    ca: Path  # vouches for the two below
    server: Path  # key and certificate in one file, for localhost and 127.0.0.1
    client: Path  # key and certificate in one file
    other_ca: Path  # vouches for nobody


def make_certificates(directory: Path) -> Certificates:
    """
    Args:
        directory: made if it is not there.
    """
    if shutil.which("openssl") is None:
        missing("openssl is not on this machine (Debian: apt install openssl)")
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("ca", "other-ca"):
        _openssl(directory, "req", "-x509", *_key(name), "-subj", f"/CN={name}", "-days", "2", "-out", f"{name}.pem")
    for name in ("server", "client"):
        _openssl(directory, "req", *_key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr")
        (directory / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext"]
        _openssl(directory, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")
        together = (directory / f"{name}.key").read_text() + (directory / f"{name}.crt").read_text()
        (directory / f"{name}.pem").write_text(together)
    return Certificates(*(directory / f"{name}.pem" for name in ("ca", "server", "client", "other-ca")))


def _key(name: str) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]


def _openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
