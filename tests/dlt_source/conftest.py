"""A module with dlt sources, on the path of one test, and syncs of it."""

import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connectors.specs import SourceSpec, parse_source

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Shop:
    """text: of the module; write() makes one and gives its dotted name."""

    folder: Path

    def module(self, text: str) -> str:
        name = f"dlt_shop_{next(_numbers)}"
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    def source(self, place: str, *streams: Mapping[str, Any], **connector: Any) -> SourceSpec:
        return parse_source(
            {
                "source": f"shop_{next(_numbers)}",
                "owner": "team:data",
                "connector": {"kind": "dlt_source", "source": place, **connector},
                "streams": list(streams),
            },
            "defs.yaml",
        )


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(tmp_path / "work"))
    return Shop(tmp_path)


__all__ = ["Callable", "Shop", "sys"]
