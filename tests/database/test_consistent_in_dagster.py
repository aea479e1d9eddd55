"""Tables of one moment through Dagster: one op with a subset, on a source that is never still."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

from platform_assets.warehouse import Warehouse
from tests.database.reading import URL_VARIABLE
from tests.ingest.conftest import Write, load, write_source
from tests.support.sql import run as sql

__all__ = ["write_source"]
Source = psycopg.Connection[Any]
Run = Callable[..., dg.ExecuteInProcessResult]
TOTAL = 2_000
TRANSFER = """
create table current (id int primary key, amount int not null);
create table savings (id int primary key, amount int not null);
create table branches (id int primary key);
insert into current select g, 10 from generate_series(1, 100) g;
insert into savings select g, 10 from generate_series(1, 100) g;
insert into branches values (1);
create function transfer() returns void language sql as $$
    update public.current set amount = amount - 1 where id = 1;
    update public.savings set amount = amount + 1 where id = 100;
$$;
"""
# whoever comes to read finds another moment than the reader before: two snapshots cannot agree by chance
ON_LOGIN = """
create function move_on() returns event_trigger language plpgsql security definer as $$
begin
    if current_setting('application_name') = 'headwater' then
        perform public.transfer();
    end if;
end $$;
create event trigger restless on login execute function move_on();
alter event trigger restless enable always;
"""


@pytest.fixture
def bank(source: Source) -> Source:
    source.execute(TRANSFER.encode())
    source.execute(ON_LOGIN.encode())
    return source


@contextmanager
def transfers(url: str) -> Generator[None]:
    """Transfers all the while, each one transaction over both tables."""
    stop, moving = threading.Event(), threading.Event()

    def move() -> None:
        with psycopg.connect(url, autocommit=True) as session:
            while not stop.wait(0.002):
                session.execute("select transfer()")
                moving.set()

    mover = threading.Thread(target=move)
    mover.start()
    try:
        assert moving.wait(60)
        yield
    finally:
        stop.set()
        mover.join()


@pytest.fixture
def run(
    bank: Source, source_url: str, env: dict[str, str], write_source: Write, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """run(selected streams): one run of Dagster."""
    for name, value in {**env, URL_VARIABLE: source_url}.items():
        monkeypatch.setenv(name, value)
    connector = {"kind": "database", "url": f"env:{URL_VARIABLE}", "consistent": True}
    streams = [{"name": name, "primary_key": "id", "retries": 0} for name in ("current", "savings", "branches")]
    attributes = {"source": "bank", "owner": "team:data", "connector": connector, "streams": streams}
    text = yaml.safe_dump({"type": "platform_assets.components.Source", "attributes": attributes})
    job = load(write_source(text, "bank")).resolve_implicit_global_asset_job_def()
    return lambda *names: job.execute_in_process(
        asset_selection=[dg.AssetKey(["bank", name]) for name in names], raise_on_error=False
    )


def test_two_tables_of_a_busy_source_agree_in_every_run(
    run: Run, bank: Source, source_url: str, warehouse: Warehouse
) -> None:
    seen: list[tuple[int, int]] = []
    with transfers(source_url):
        for _ in range(2):
            result = run("current", "savings")

            assert result.success
            assert {event.step_key for event in result.all_events if event.step_key} == {"bank"}
            assert sorted(
                event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key
            ) == ["current", "savings"]
            query = "select (select sum(amount) from raw_bank.current), (select sum(amount) from raw_bank.savings)"
            ((current, savings),) = sql(warehouse.admin_dsn, query)
            seen.append((int(current), int(savings)))

    assert [current + savings for current, savings in seen] == [TOTAL] * 2
    # the runs themselves were of other moments
    assert len(set(seen)) == 2


def test_what_is_not_selected_is_not_read(run: Run, warehouse: Warehouse) -> None:
    assert run("branches").success
    assert sql(warehouse.admin_dsn, "select stream from ops.syncs") == [("branches",)]
