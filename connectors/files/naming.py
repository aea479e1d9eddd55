"""What a file's name says: its format, its compression, and which files belong together."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from connectors.errors import ConfigError
from connectors.files.seen import FileInfo

if TYPE_CHECKING:
    from connectors.kinds.files import FilesStreamSpec

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "excel",
    ".xlsm": "excel",
}
COMPRESSIONS = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".xz": "xz",
}


def compression_of(path: str, stream: "FilesStreamSpec") -> str:
    """gzip, zstd, bz2, xz or none."""
    if stream.compression != "auto":
        return stream.compression
    return COMPRESSIONS.get(_suffix(path), "none")


def format_of(path: str, stream: "FilesStreamSpec", where: str) -> str:
    """csv, jsonl, parquet or excel.

    Raises:
        ConfigError: neither the stream nor the name says.
    """
    if stream.format is not None:
        return stream.format
    bare = path[: -len(_suffix(path))] if _suffix(path) in COMPRESSIONS else path
    found = FORMATS.get(_suffix(bare))
    if found is None:
        raise ConfigError(where, f"{path} does not say what it holds", "Set format: csv | jsonl | parquet | excel.")
    return found


def unique_names(header: Iterable[str]) -> list[str]:
    """Column names, each once: an empty one becomes `column_<n>`, a repeated one gets a number: `total`, `total_2`."""
    names: list[str] = []
    for index, raw in enumerate(header, 1):
        wanted = raw.strip() or f"column_{index}"
        name, number = wanted, 1
        while name in names:
            number += 1
            name = f"{wanted}_{number}"
        names.append(name)
    return names


def stream_names(files: Iterable[FileInfo]) -> list[str]:
    """Patterns of the readable files, digits replaced: `weather_2013-01-05.csv.gz` gives `weather_*.csv.gz`."""
    found: dict[str, None] = {}
    for file in files:
        suffixes = re.findall(r"\.[A-Za-z][A-Za-z0-9]*", file.path.rsplit("/", 1)[-1])[-2:]
        if any(suffix.lower() in FORMATS for suffix in suffixes):
            found[re.sub(r"\d+(?:[-_.]\d+)*(?![A-Za-z0-9]*$)", "*", file.path)] = None
    return sorted(found)


def _suffix(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""
