"""The peers that several benchmarks run, each in its own venv from the package index."""

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.support import Measured, measure, peer

# later versions download their binary at import
SLING_VERSION = "1.4.11"
DLT = ("dlt[postgres,sql_database,parquet]==1.31.0", "sqlalchemy<2.1", "psycopg2-binary", "pandas<3")
VERSIONS = {"sling": SLING_VERSION, "dlt": "1.31.0"}


def quiet() -> dict[str, str]:
    """The environment without a word to anybody about the run."""
    silent = {"DLT_TELEMETRY": "false", "RUNTIME__DLTHUB_TELEMETRY": "false", "DISABLE_TELEMETRY": "true"}
    return dict(os.environ) | silent | {"SLING_DISABLE_TELEMETRY": "true"}


def run_sling(folder: Path, *arguments: str) -> Measured:
    """Sling's binary inside its wheel, without Python around it: `sling run ...`.

    Raises:
        PeerError: it is not there for this platform, or failed.
    """
    interpreter = peer("sling", f"sling-linux-amd64=={SLING_VERSION}")
    found = (interpreter.parent.parent / "lib").glob("python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64")
    return measure([str(next(found)), "run", *arguments], quiet(), folder)


def run_dlt(folder: Path, program: str, arguments: Sequence[str]) -> Measured:
    """A dlt program in dlt's venv; `folder` is its home for this run.

    Raises:
        PeerError: it could not be installed, or failed.
    """
    return measure([str(peer("dlt-files", *DLT)), "-c", program, *arguments], quiet(), folder)
