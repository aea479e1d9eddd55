"""docs/faults.md names a test for every fault; each of them exists."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parents[1] / "docs" / "faults.md"


def test_every_fault_of_the_page_has_its_tests() -> None:
    rows = re.findall(r"^\| .+ \| (\w+) \| (`test_.+`) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {(area, name) for area, names in rows for name in re.findall(r"`(test_\w+)`", names)}
    there = {
        (path.stem.removeprefix("test_faults_"), name)
        for path in TESTS.glob("test_faults_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(rows) >= 26
    assert named - there == set()
