"""Excel, where openpyxl is installed; where it is not, the message says so."""

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import Frame
from connectors.errors import ConfigError, SourceError
from tests.files.reading import put, read

HAS_OPENPYXL = find_spec("openpyxl") is not None
EXCEL = {"path": "*.xlsx"}


@pytest.mark.skipif(HAS_OPENPYXL, reason="openpyxl is installed")
def test_a_missing_library_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.xlsx", b"PK")

    error = read(tmp_path, EXCEL).error

    assert isinstance(error, ConfigError)
    assert error.hint == "Install openpyxl."


@pytest.mark.skipif(not HAS_OPENPYXL, reason="openpyxl is an optional extra")
def test_a_sheet_is_read_with_its_types(tmp_path: Path) -> None:
    from openpyxl import Workbook  # pyright: ignore[reportMissingModuleSource] an optional extra

    book: Any = Workbook()
    book.active.append(["id", "price", "at", None, "ok"])
    book.active.append([1, 1.5, datetime(2024, 1, 1, 10), "x", True])  # noqa: DTZ001 Excel knows no zones
    book.active.append([])
    book.active.append([2, 2, None, None])
    book.create_sheet("other").append(["id"])
    book.save(tmp_path / "a.xlsx")

    found = read(tmp_path, EXCEL)

    assert found.rows == [
        {"id": 1, "price": 1.5, "at": datetime(2024, 1, 1, 10, tzinfo=UTC), "column_4": "x", "ok": True},
        {"id": 2, "price": 2.0, "at": None, "column_4": None, "ok": None},
    ]
    assert [(frame.position, frame.numbers) for frame in found.of(Frame)] == [("a.xlsx row 2", [1, 3])]
    assert isinstance(read(tmp_path, {**EXCEL, "sheet": "nope"}).error, ConfigError)
    put(tmp_path / "b", "b.xlsx", b"no workbook")
    assert isinstance(read(tmp_path / "b", EXCEL).error, SourceError)
