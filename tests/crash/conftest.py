"""What the crash tests share; tests.support.matrix prints their matrix."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.crash.history")


@pytest.fixture
def matrix(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`matrix(disposition, event)` notes a row; its outcome is the test's, where `said` does not say another."""

    def note(disposition: str, event: str, said: str = "") -> None:
        request.node.user_properties.append(("matrix", (disposition, event, said)))

    return note


@pytest.fixture(autouse=True)
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folders of the test's own."""
    folder = tmp_path / "work"
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(folder))
    return folder
