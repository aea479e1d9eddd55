"""Bespoke connectors as a test writes them: a module of its own, on the path of this test alone."""

import itertools
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from connectors.specs import SourceSpec, parse_source

DOCS = Path(__file__).parents[2] / "docs" / "python.md"
_numbers = itertools.count()


def examples() -> list[str]:
    """The Python blocks of docs/python.md, in order."""
    return re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)


class Modules:
    """Writes modules into a folder that is on sys.path."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.syspath_prepend(str(folder))

    def write(self, text: str) -> str:
        """The dotted name of a new module."""
        package = f"bespoke_{next(_numbers)}"
        (self._folder / package).mkdir()
        (self._folder / package / "shop.py").write_text(text, encoding="utf-8")
        for name in (package, f"{package}.shop"):
            self._monkeypatch.delitem(sys.modules, name, raising=False)
        return f"{package}.shop"

    def source(self, text: str, stream: Mapping[str, Any] | None = None, **connector: Any) -> SourceSpec:
        """A source of one stream `orders`, read by the module."""
        return source(self.write(text), stream, **connector)


def source(module: str, stream: Mapping[str, Any] | None = None, **connector: Any) -> SourceSpec:
    return parse_source(
        {
            "source": f"shop_{next(_numbers)}",
            "owner": "team:data",
            "connector": {"kind": "python", "module": module, **connector},
            "streams": [{"name": "orders", **(stream or {})}],
        },
        "defs.yaml",
    )
