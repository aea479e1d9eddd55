"""A warehouse for a whole module, and syncs of all streams of a source in one run."""

from collections.abc import Generator, Mapping
from uuid import uuid4

import pytest

from connectors.specs import SourceSpec
from connectors.sync import Progress, SyncRequest, SyncResult
from connectors.sync.together import Outcome, sync_together
from platform_assets.settings import load_settings
from platform_assets.warehouse import ensure_warehouse
from tests.support.servers import TestServer, clean_environment, database_pair


@pytest.fixture(scope="module")
def dsn(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """One warehouse for the module; every test has a source of its own."""
    with database_pair(server, f"test_{uuid4().hex[:12]}") as pair:
        home = str(tmp_path_factory.mktemp("home"))
        yield ensure_warehouse(load_settings(clean_environment() | pair | {"HEADWATER_HOME": home})).loader_dsn


@pytest.fixture
def name() -> str:
    return f"unit_{uuid4().hex[:8]}"


def sync(spec: SourceSpec, dsn: str, log: list[str] | None = None) -> Mapping[str, Outcome]:
    requests = [SyncRequest(spec, one, trigger="cli") for one in spec.streams]
    lines = log if log is not None else []
    return sync_together(requests, dsn, {one.name: Progress() for one in spec.streams}, lines.append)


def succeeded(outcomes: Mapping[str, Outcome]) -> bool:
    assert all(isinstance(outcome, SyncResult) for outcome in outcomes.values()), outcomes
    return True
