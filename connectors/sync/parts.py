"""Typed tables to part files that COPY takes, written as they come: memory stays flat."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from connectors.sync.package import Origin, Part

if TYPE_CHECKING:
    import pyarrow as pa


class PartWriter:
    """Writes tables to part files, a new file whenever the set of columns changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._file: IO[bytes] | None = None
        self._columns: tuple[str, ...] = ()
        self._path = folder
        self._rows = 0
        self._origins: list[Origin] = []
        self._sealed: list[Part] = []

    def write(self, table: "pa.Table", position: str = "", numbers: Sequence[int] | None = None) -> None:
        """position: where the rows came from; numbers: their places there, where they are not 1, 2, 3, ..."""
        from connectors.sync.copy_text import lines  # Arrow loads with the first table

        columns = tuple(table.column_names)
        if self._file is None or columns != self._columns:
            self._close()
            self._path = self.new_path()
            self._columns = columns
            self._file = self._path.open("wb")
        self._file.writelines(lines(table))
        self._origins.append(Origin(self._rows, position, numbers))
        self._rows += table.num_rows

    def add(self, part: Part) -> None:
        """Take over a finished file, in order with the others."""
        self._close()
        self._sealed.append(part)

    def new_path(self) -> Path:
        self._number += 1
        return self._folder / f"part_{self._number:05d}.copy"

    @property
    def size_bytes(self) -> int:
        """Of what is not sealed yet."""
        parts = sum(part.path.stat().st_size for part in self._sealed)
        return parts + (self._file.tell() if self._file is not None else 0)

    def cut(self) -> int:
        """How many files there are; what follows begins another."""
        self._close()
        return len(self._sealed)

    def seal(self) -> list[Part]:
        """Everything written so far as closed files; the writer starts anew."""
        self._close()
        sealed, self._sealed = self._sealed, []
        return sealed

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            ends = (self._origins[0].position, self._origins[-1].position)
            position = " to ".join(dict.fromkeys(ends))
            self._sealed.append(Part(self._path, self._rows, self._columns, position, tuple(self._origins), "text"))
        self._file, self._rows, self._origins = None, 0, []
