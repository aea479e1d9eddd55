"""The demo's flights API, over real HTTP."""

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.api import Refusals
from demo.release import Release
from demo.stack import DemoStack

Page = Mapping[str, Any]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    with DemoStack(tmp_path_factory.mktemp("home"), refuse_every=0) as stack:
        yield stack


@pytest.fixture
def stack(running: DemoStack) -> DemoStack:
    running.release(Release())
    return running


@pytest.fixture
def client(stack: DemoStack) -> Iterator[httpx.Client]:
    with open_client(stack) as client:
        yield client


def open_client(stack: DemoStack) -> httpx.Client:
    settings = stack.environment()
    return httpx.Client(
        base_url=settings["FLIGHTS_API_URL"], headers={"authorization": f"Bearer {settings['FLIGHTS_API_TOKEN']}"}
    )


def pages(client: httpx.Client, **query: str) -> Iterator[Page]:
    cursor: str | None = None
    while True:
        answer = client.get("/flights", params={**query, **({"cursor": cursor} if cursor else {})})
        answer.raise_for_status()
        page = answer.json()
        yield page
        cursor = page["next"]
        if cursor is None:
            return


def keys(page: Page) -> list[tuple[str, str, int, str]]:
    return [(row["time_hour"], row["carrier"], row["flight"], row["origin"]) for row in page["data"]]


def test_every_flight_arrives_once_and_in_order(client: httpx.Client) -> None:
    found = list(pages(client, page_size="1000"))
    rows = [row for page in found for row in page["data"]]
    seen = [key for page in found for key in keys(page)]
    assert len(found) == 13
    assert seen == sorted(set(seen))
    assert {page["total"] for page in found} == {12_208} == {len(seen)}
    assert sum(row["distance"] for row in rows) == 12_465_282
    assert sum(row["dep_time"] is None for row in rows) == 82


@pytest.mark.parametrize("size", ["1", "499", "720"])
def test_the_page_size_changes_nothing_but_the_pages(client: httpx.Client, size: str) -> None:
    bounds = {"updated_after": "2013-01-12T00:00:00Z", "updated_before": "2013-01-12T14:00:00Z"}
    whole = [key for page in pages(client, **bounds) for key in keys(page)]
    assert len(whole) == 318
    assert [key for page in pages(client, **bounds, page_size=size) for key in keys(page)] == whole


def test_the_time_filter_is_half_open(client: httpx.Client) -> None:
    after = client.get("/flights", params={"updated_after": "2013-01-08T00:00:00Z"}).json()["total"]
    before = client.get("/flights", params={"updated_before": "2013-01-08T00:00:00Z"}).json()["total"]
    assert (after, before) == (6_251, 12_208 - 6_251)
    hour = {"updated_after": "2013-01-01T10:00:00Z", "updated_before": "2013-01-01T11:00:00Z"}
    assert {row["time_hour"] for row in client.get("/flights", params=hour).json()["data"]} == {hour["updated_after"]}


def test_an_offset_means_the_same_instant(client: httpx.Client) -> None:
    local = client.get("/flights", params={"updated_after": "2013-01-07T19:00:00-05:00"})
    assert local.json()["total"] == 6_251


def test_a_filter_behind_the_last_flight_gives_an_empty_page(client: httpx.Client) -> None:
    page = client.get("/flights", params={"updated_after": "2099-01-01T00:00:00Z"}).json()
    assert page == {"data": [], "next": None, "total": 0}


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic abc"}])
def test_a_wrong_token_is_refused(stack: DemoStack, header: dict[str, str]) -> None:
    answer = httpx.get(f"{stack.environment()['FLIGHTS_API_URL']}/flights", headers=header)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "data" not in answer.json()


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("page_size", "0"),
        ("page_size", "1001"),
        ("page_size", "many"),
        ("cursor", "abc"),
        ("cursor", "WzFd"),
        ("updated_after", "2013-01-08"),
        ("updated_before", "yesterday"),
    ],
)
def test_a_bad_parameter_is_named(client: httpx.Client, parameter: str, value: str) -> None:
    answer = client.get("/flights", params={parameter: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"{parameter}: ")


def test_refusals_come_at_the_same_requests_and_do_not_cost_a_row(tmp_path: Path) -> None:
    with DemoStack(tmp_path, refuse_every=4) as stack, open_client(stack) as client:
        answers = [client.get("/flights", params={"page_size": "1"}) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [429, 200, 503, 200, 429, 200, 503, 200]
    assert [answer.headers.get("retry-after") for answer in answers[:4]] == ["1", None, None, None]


def test_one_full_read_meets_both_kinds_of_refusal() -> None:
    statuses = [Refusals().status(number) for number in range(1, 14)]
    assert {429, 503} <= set(statuses)
    assert statuses.count(None) >= 10


def test_a_day_released_while_paging_neither_shifts_nor_repeats_a_page(stack: DemoStack, client: httpx.Client) -> None:
    stack.release(Release(date(2013, 1, 1)))
    reading = pages(client, page_size="500")
    first = next(reading)
    stack.release(Release(date(2013, 1, 2)))
    seen = keys(first) + [key for page in reading for key in keys(page)]
    assert first["total"] == 842
    assert len(seen) == len(set(seen)) == 842 + 943


def test_days_not_yet_released_do_not_exist(stack: DemoStack, client: httpx.Client) -> None:
    stack.release(Release.first_days(3))
    rows = [row for page in pages(client, page_size="1000") for row in page["data"]]
    assert {(row["month"], row["day"]) for row in rows} == {(1, 1), (1, 2), (1, 3)}
    assert client.get("/health").json() == {"status": "ok", "flights": len(rows)}
