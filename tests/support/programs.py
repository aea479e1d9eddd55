"""Programs of others for the tests that run real ones: where they are installed, and whether they can be."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from connectors.errors import TransientError
from connectors.installing import Package, Watch, install, make_lock

REQUIRED = "HEADWATER_REQUIRE_INDEX"
"""Set where a skip would hide that nothing ran, as in continuous integration."""
PROBE = "singer-tools==0.4.1"


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """One folder for all workers of a run. Skips the module where no package index answers, unless one has to."""
    with pytest.MonkeyPatch.context() as patch:
        shared = tmp_path_factory.getbasetemp().parent / "headwater-connectors"
        patch.setenv("HEADWATER_CONNECTORS", str(shared))
        try:
            make_lock(Package(PROBE, ""), "conformance", Watch())
        except TransientError as error:
            if REQUIRED in os.environ:
                raise
            pytest.skip(f"no package index: {error}")
        yield shared


def environment(requirement: str, *requires: str) -> Path:
    """The folder of an environment with the package."""
    lock = make_lock(Package(requirement, "", requires), "conformance", Watch())
    return install(lock, "conformance", Watch()).folder
