"""Collects every row of the crash and overlap matrix and prints it at the end of the run."""

from typing import cast

import pytest

_rows: list[tuple[str, str, str]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for name, value in report.user_properties:
            if name == "matrix":
                disposition, event, said = cast("tuple[str, str, str]", value)
                _rows.append((disposition, event, said or _outcome(report)))


def _outcome(report: pytest.TestReport) -> str:
    if reason := getattr(report, "wasxfail", ""):
        return f"KNOWN TO BE WRONG ({reason})"
    return "right" if report.passed else report.outcome.upper()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows:
        return
    terminalreporter.write_sep("-", "crash and overlap matrix")
    for disposition in dict.fromkeys(row[0] for row in _rows):
        cells = [f"{event}: {said}" for name, event, said in _rows if name == disposition]
        terminalreporter.write_line(f"{disposition:14} {len(cells)} cases; " + "; ".join(cells))
