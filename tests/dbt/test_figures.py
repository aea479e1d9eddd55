"""The marts say the demo's figures, to the last digit."""

import pytest

from tests.dbt.conftest import Built
from tests.dbt.figures import CROSS_CHECKS, QUERIES, expected_figures, measured_figures


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_a_mart_says_the_figure(built: Built, name: str) -> None:
    assert measured_figures(built.warehouse, {name: QUERIES[name]}) == {name: expected_figures()[name]}


def test_every_figure_has_a_mart_that_says_it() -> None:
    assert set(QUERIES) == set(expected_figures())


def test_marts_agree_with_each_other(built: Built) -> None:
    expected = expected_figures()

    assert measured_figures(built.warehouse, CROSS_CHECKS) == {name: expected[name] for name in CROSS_CHECKS}
