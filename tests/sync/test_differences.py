"""The pure difference of two shapes."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.sync.differences import Field, Shape, apply, diff, likeness, name_likeness, with_renames

NAMES = st.sampled_from(["id", "name", "full_name", "amount", "at", "note"])
FIELDS = st.builds(
    Field,
    type=st.sampled_from(["text", "bigint", "numeric(12,2)"]),
    nullable=st.booleans(),
    accepted_values=st.lists(st.sampled_from(["open", "shut"]), max_size=2).map(tuple),
)
SHAPES = st.builds(Shape, columns=st.dictionaries(NAMES, FIELDS), key=st.lists(NAMES, max_size=2).map(tuple))


@given(SHAPES, SHAPES)
def test_the_difference_applied_is_the_other_shape(before: Shape, after: Shape) -> None:
    assert apply(diff(before, after), before) == after


@given(SHAPES, SHAPES)
def test_renames_change_how_it_is_said_and_not_what(before: Shape, after: Shape) -> None:
    changes = with_renames(diff(before, after), lambda old, new: likeness(name_likeness(old, new), None))

    assert apply(changes, before) == after


@given(SHAPES, SHAPES, st.floats(0.6, 1))
def test_a_column_is_renamed_once_and_to_one_of_its_type(before: Shape, after: Shape, score: float) -> None:
    renamed = [c for c in with_renames(diff(before, after), lambda _o, _n: score) if c.kind == "renamed"]

    assert len({c.old_name for c in renamed}) == len({c.column for c in renamed}) == len(renamed)
    assert all(before.columns[c.old_name].type == after.columns[c.column].type for c in renamed)


@given(SHAPES)
def test_a_shape_differs_from_itself_in_nothing(shape: Shape) -> None:
    assert diff(shape, shape) == ()


def test_likeness_of_names_alone_and_with_values() -> None:
    assert likeness(name_likeness("customer_name", "customername"), None) > 0.8
    assert likeness(name_likeness("customerName", "customer_name"), None) > 0.8
    assert likeness(name_likeness("amount", "colour"), None) < 0.5
    assert likeness(name_likeness("amount", "total"), 1.0) >= 0.9
    assert likeness(name_likeness("colour", "country"), 0.0) < 0.5
