"""Collects every row of the matrix and prints it at the end of the run."""

from pathlib import Path

import pytest

_rows: list[tuple[str, str, str]] = []


@pytest.fixture
def matrix(request: pytest.FixtureRequest) -> object:
    """`matrix(disposition, event)` notes the row; its outcome is the test's."""

    def note(disposition: str, event: str) -> None:
        request.node.user_properties.append(("matrix", (disposition, event)))

    return note


@pytest.fixture(autouse=True)
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folders of the test's own."""
    folder = tmp_path / "work"
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(folder))
    return folder


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for name, value in report.user_properties:
            if name == "matrix":
                _rows.append((*value, report.outcome))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows:
        return
    terminalreporter.write_sep("-", "crash and overlap matrix")
    for disposition in dict.fromkeys(row[0] for row in _rows):
        cells = [
            f"{event}: {'right' if outcome == 'passed' else outcome.upper()}"
            for name, event, outcome in _rows
            if name == disposition
        ]
        terminalreporter.write_line(f"{disposition:14} {len(cells)} cases; " + "; ".join(cells))
