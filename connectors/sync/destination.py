"""What dlt tells while it builds a load package. dlt is imported with the first package: see dlt_destination."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

LOADS_TABLE = "_dlt_loads"
TABLES_LOCK = "hashtextextended(%s, 8)"
"""Key of the advisory lock on making tables in the dataset of this name: streams of one source that start together
would race on CREATE SCHEMA and on dlt's own tables."""


class Sink(Protocol):
    """Where a package goes, told in this order, all in dlt's thread."""

    def alone(self, dataset: str) -> AbstractContextManager[None]:
        """Nobody else makes tables in the dataset inside the block."""
        ...

    def tables_are_made(self) -> None:
        """The raw table and dlt's own are there, with every column of the package."""
        ...

    def take(self, path: Path) -> None:
        """One file of the package."""
        ...

    def complete(self, schema_name: str, schema_hash: str) -> None:
        """There are no more files."""
        ...
