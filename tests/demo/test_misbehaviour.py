"""What the demo's API does when it is told to misbehave, over real HTTP."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from demo.misbehaviour import Misbehaviour
from demo.release import Release
from demo.stack import DemoStack

DAYS = Release.first_days(2).until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    with DemoStack(tmp_path_factory.mktemp("home"), refuse_every=0) as running:
        yield running


def get(stack: DemoStack, path: str, **parameters: str) -> Mapping[str, Any]:
    found = stack.environment()
    headers = {"Authorization": f"Bearer {found['FLIGHTS_API_TOKEN']}"}
    answer = httpx.get(f"{found['FLIGHTS_API_URL']}{path}", params=parameters, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def read(stack: DemoStack, **misbehaviour: Any) -> tuple[list[Mapping[str, Any]], int]:
    """All flights of two days, and the total that the API states."""
    stack.release(Release(DAYS, Misbehaviour(**misbehaviour)))
    rows, cursor = list[Mapping[str, Any]](), ""
    while True:
        page = get(stack, "/flights", page_size="200", cursor=cursor)
        rows += page["data"]
        cursor = page["next"]
        if cursor is None:
            return rows, page["total"]


def test_fields_change_as_told(stack: DemoStack) -> None:
    usual, total = read(stack)
    changed, same = read(
        stack, renamed={"dep_delay": "delay"}, retyped=["distance"], dropped=["tailnum"], added={"gate": "B22"}
    )

    assert (len(usual), len(changed), total) == (same, same, same)
    expected = dict(usual[0]) | {"gate": "B22", "delay": usual[0]["dep_delay"]}
    expected["distance"] = f"{usual[0]['distance']} units"
    assert changed[0] == {name: value for name, value in expected.items() if name not in ("tailnum", "dep_delay")}


def test_a_page_is_lost_and_the_total_does_not_know_of_it(stack: DemoStack) -> None:
    usual, total = read(stack)
    left, claimed = read(stack, lost_page=3)

    assert claimed == total
    assert left == [*usual[:400], *usual[600:]]


def test_half_of_the_flights_and_late_ones_are_gone_from_the_total_too(stack: DemoStack) -> None:
    usual, total = read(stack)
    half, half_total = read(stack, halved=True)
    most, most_total = read(stack, late=["2013-01-02"])

    assert (len(half), half_total) == ((total + 1) // 2, (total + 1) // 2)
    assert len(most) == most_total
    assert {row["day"] for row in usual if row not in most} == {2}
    assert get(stack, "/corrections") == {"data": []}
    read(stack, corrected=["2013-01-02"])
    assert get(stack, "/corrections") == {"data": [{"day": "2013-01-02T12:00:00Z"}]}


def test_a_stalled_cursor_does_not_pass_its_time(stack: DemoStack) -> None:
    rows, total = read(stack, stalled_at="2013-01-02T12:00:00Z")

    assert len(rows) == total
    assert max(row["time_hour"] for row in rows) == "2013-01-02T12:00:00Z"
