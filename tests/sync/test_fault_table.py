"""docs/faults.md names a test for every fault; each of them exists."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"


def test_every_fault_of_the_page_has_its_tests() -> None:
    rows = re.findall(r"^\| .+ \| ([\w/]+) \| (`test_.+`) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {(file_of(area), name) for area, names in rows for name in re.findall(r"`(test_\w+)`", names)}
    there = {
        (file, name)
        for file in {file for file, _ in named}
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(rows) >= 46
    assert named - there == set()


def file_of(area: str) -> Path:
    """`types` is an area of the faults in data; `http/paging` a file of another folder."""
    folder, _, name = area.rpartition("/")
    return TESTS / folder / f"test_{name}.py" if folder else TESTS / "sync" / f"test_faults_{name}.py"
