"""Where a load package goes. dlt, which brings it there, is imported with the first package: see dlt_destination."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

LOADS_TABLE = "_dlt_loads"


class Sink(Protocol):
    """Where a package goes: each file once, then one commit."""

    def alone(self, dataset: str) -> AbstractContextManager[None]:
        """Nobody else makes tables in the dataset inside the block."""
        ...

    def take(self, table_name: str, path: Path) -> None:
        """Put one package file into the open transaction."""
        ...

    def commit(self, load_id: str, schema_name: str, schema_hash: str) -> None:
        """Audit what was taken, publish it and commit; raise, with everything rolled back, when the audit fails."""
        ...
