"""What the crash tests share; tests.support.matrix prints their matrix."""

from pathlib import Path

import pytest


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
