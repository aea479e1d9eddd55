"""The state of the files kind: small, exact for the newest files, and never silent about a file it cannot place."""

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files.seen import FileInfo, Limits, Seen

SMALL = Limits(names=4, segment=3)


def file(number: int, modified: int | None = None, mark: str = "a") -> FileInfo:
    return FileInfo(f"f{number}.csv", 1, modified if modified is not None else number, mark)


def sync(seen: Seen, listing: list[FileInfo]) -> tuple[list[str], Seen]:
    """One sync: everything pending is read, oldest first; the state goes through JSON."""
    found = seen.pending(listing)
    assert not found.untold
    pending = sorted((*found.new, *found.changed), key=lambda item: item.key)
    for item in pending:
        seen.add(item)
    raw = json.loads(json.dumps(seen.to_json()))
    return [item.path for item in pending], Seen.from_json(raw, seen.limits)


def test_files_are_read_once_however_many() -> None:
    listing: list[FileInfo] = []
    seen = Seen(limits=SMALL)
    for number in range(60):
        listing.append(file(number))
        read, seen = sync(seen, listing)
        assert read == [f"f{number}.csv"]
    assert sync(seen, listing)[0] == []


def test_the_state_of_many_files_stays_small() -> None:
    seen = Seen()
    listing = [file(number) for number in range(30_000)]
    for item in listing:
        seen.add(item)
    assert len(json.dumps(seen.to_json())) <= 48_000
    assert seen.pending(listing).new == ()
    late = file(99_999, modified=29_000)
    assert seen.pending([*listing, late]).new == (late,)


def test_a_late_file_with_an_old_time_is_found_even_where_only_the_xor_is_left() -> None:
    seen = Seen(limits=replace(SMALL, folded_bytes=450))
    listing = [file(number) for number in range(40)]
    for item in listing:
        seen.add(item)
    assert any(segment.shorts is None for segment in seen.segments)
    one, two = file(100, modified=1), file(101, modified=2)
    assert set(seen.pending([*listing, one]).new) == {one}
    assert set(seen.pending([*listing, one, two]).new) == {one, two}


def test_what_cannot_be_told_is_said() -> None:
    seen = Seen(limits=replace(SMALL, folded_bytes=450))
    listing = [file(number) for number in range(40)]
    for item in listing:
        seen.add(item)
    late = [file(100 + number, modified=1) for number in range(3)]
    found = seen.pending([*listing, *late])
    assert set(late) <= set(found.untold)
    assert not found.new


def test_deleted_files_are_no_news() -> None:
    seen = Seen(limits=replace(SMALL, folded_bytes=450))
    listing = [file(number) for number in range(40)]
    for item in listing:
        seen.add(item)
    kept = listing[7:]
    assert sync(seen, kept)[0] == []
    assert sync(seen, [*kept, late := file(100, modified=9)])[0] == [late.path]


def test_a_changed_file_is_known_by_name() -> None:
    seen = Seen()
    seen.add(file(1))
    assert seen.pending([file(1, mark="b")]).changed == (file(1, mark="b"),)


def test_a_state_of_another_version_counts_as_nothing() -> None:
    assert Seen.from_json({"version": 99, "files": {"a": 1}}).names == {}


steps = st.lists(
    st.tuples(st.sampled_from(["add", "late", "delete", "change", "sync"]), st.integers(0, 30)), max_size=80
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_no_file_is_missed_and_none_is_read_twice(moves: list[tuple[str, int]]) -> None:
    """While the digests fit, whatever comes, goes or changes between syncs."""
    present: dict[str, FileInfo] = {}
    done: set[tuple[str, str]] = set()
    seen = Seen(limits=SMALL)
    clock = 100
    for count, (move, number) in enumerate([*moves, ("sync", 0)]):
        clock += 1
        name = f"f{count}.csv"
        if move == "add":
            present[name] = FileInfo(name, 1, clock, "a")
        elif move == "late":
            present[name] = FileInfo(name, 1, number, "a")
        elif move == "delete" and present:
            del present[sorted(present)[number % len(present)]]
        elif move == "change" and present:
            chosen = sorted(present)[number % len(present)]
            present[chosen] = FileInfo(chosen, 1, clock, f"m{count}")
        elif move == "sync":
            listing = sorted(present.values(), key=lambda item: item.key)
            read, seen = sync(seen, listing)
            expected = {item.path for item in listing if (item.path, item.mark) not in done}
            assert set(read) == expected
            assert len(read) == len(expected)
            done |= {(item.path, item.mark) for item in listing}
