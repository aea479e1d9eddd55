"""Dates and times that do not exist, that no column holds, or that carry more than the column keeps."""

from pathlib import Path

import pyarrow as pa

from tests.support.faults import Lab, copy_file, frame, lines

COLUMNS = {"d": {"type": "date"}, "t": {"type": "timestamp"}, "w": {"type": "time"}}


def test_dates_that_do_not_exist_or_are_out_of_range_are_quarantined_one_by_one(lab: Lab) -> None:
    bad = [
        ("d", '"0000-00-00"'), ("d", '"2024-02-30"'), ("d", '"10000-01-01"'), ("d", '"infinity"'), ("d", '""'),
        ("d", "20240101"), ("d", "true"), ("t", '"0000-00-00 00:00:00"'), ("t", '"2024-02-30T00:00:00Z"'),
        ("t", '"10000-01-01T00:00:00Z"'), ("t", '"99999-01-01T00:00:00Z"'), ("t", '"infinity"'), ("t", '""'),
        ("t", '"0001-01-01T00:00:00+14:00"'), ("t", '"9999-12-31T23:59:59-14:00"'), ("t", '"2024-01-01T24:30:00Z"'),
        ("t", '"2024-01-01T23:59:60Z"'), ("t", "1704067200"), ("t", "{}"), ("w", '"25:00"'), ("w", '"12:00:00+02:00"'),
        ("w", "12"), ("w", '""'),
    ]  # fmt: skip
    records = [f'{{"id":{number},"{name}":{text}}}' for number, (name, text) in enumerate(bad)]
    stream = lab.stream(columns=COLUMNS)
    stream.sync(lines(*records, '{"id":99,"d":"2024-02-29","t":"2024-02-29T00:00:00Z","w":"23:59"}'))
    stream.sync(*(lines(record) for record in records), lines('{"id":100,"d":"9999-12-31"}'))
    assert stream.values("id") == ["99", "100"]
    assert [field for _, field, _ in stream.held()] == [name for name, _ in bad] * 2
    assert ("retyped", "d", "quarantined") in stream.drift()


def test_moments_of_every_zone_become_the_same_utc(lab: Lab) -> None:
    texts = [
        "2024-01-01T05:00:00+05:00", "2023-12-31T19:00:00-05:00", "2024-01-01T00:00:00Z", "2024-01-01 00:00:00",
        "2024-01-01T05:30:00+0530", "2024-01-01",
    ]  # fmt: skip
    stream = lab.stream(columns=COLUMNS)
    stream.sync(lines(*(f'{{"id":{number},"t":"{text}"}}' for number, text in enumerate(texts))))
    stream.sync(*(lines(f'{{"id":1{number},"t":"{text}"}}') for number, text in enumerate(texts)))
    stream.sync(frame(id=list(range(20, 26)), t=texts))
    assert set(stream.values("t")) == {"2024-01-01 00:00:00+00"}
    assert len(stream.values("t")) == 18


def test_fractions_beyond_microseconds_are_cut_and_counted(lab: Lab) -> None:
    stream = lab.stream(columns=COLUMNS)
    fine = '"t":"2024-01-01T00:00:00.123456789Z","w":"12:00:00.1234567"'
    stream.sync(
        lines(f'{{"id":1,{fine}}}'), lines(f'{{"id":2,{fine}}}', '{"id":3,"t":"2024-01-01T00:00:00.123456000Z"}')
    )
    warning = stream.warning("cleaned_text")
    stream.sync(frame(id=[4, 5], t=pa.array([1, 1_000], pa.timestamp("ns")), w=pa.array([1, 1_000], pa.time64("ns"))))
    second = stream.warning("cleaned_text")
    assert warning is not None
    assert second is not None
    assert dict(warning.measured) == {"fractions": 4}
    assert dict(second.measured) == {"fractions": 2}
    assert stream.values("t")[:4] == ["2024-01-01 00:00:00.123456+00"] * 3 + ["1970-01-01 00:00:00+00"]
    assert stream.values("w") == ["12:00:00.123456", "12:00:00.123456", None, "00:00:00", "00:00:00.000001"]


def test_arrow_times_beyond_the_calendar_are_quarantined_and_never_wrap(lab: Lab) -> None:
    year = 365 * 86_400
    # as microseconds the last one is 2^64 and 448384 more: 1970, where a cast wraps around
    wrapping = pa.array([0, 18_446_744_073_710], pa.timestamp("s"))
    beyond = pa.array([0, 9_000 * year, -3_000 * year], pa.timestamp("s"))
    days = pa.array([0, 3_000_000, -800_000], pa.date32())
    berlin = pa.array([1_700_000_000_000], pa.timestamp("ms", "Europe/Berlin"))
    stream = lab.stream()
    stream.sync(
        frame("frame 1", id=[1, 2], t=wrapping),
        frame("frame 2", id=[3, 4, 5], t=beyond),
        frame("frame 3", id=[6, 7, 8], d=days),
        frame("frame 4", id=[9], t=berlin),
    )
    assert stream.values("id") == ["1", "3", "6", "9"]
    assert stream.values("t")[3] == "2023-11-14 22:13:20+00"
    assert [(field, position) for _, field, position in stream.held()] == [
        ("t", "frame 1, record 2"), ("t", "frame 2, record 2"), ("t", "frame 2, record 3"),
        ("d", "frame 3, record 2"), ("d", "frame 3, record 3"),
    ]  # fmt: skip
    assert "since 1970" in stream.payloads()[0]


def test_what_postgresql_itself_refuses_in_a_copied_file_is_quarantined(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream()
    body = "1,2024-02-30,\n2,2024-02-29,2024-01-01 00:00:00+02\n3,0000-00-00,\n4,,nonsense\n"
    stream.sync(copy_file(tmp_path / "a.csv", body, id=pa.int64(), d=pa.date32(), t=pa.timestamp("us", "UTC")))
    assert stream.values("t") == ["2023-12-31 22:00:00+00"]
    assert [field for _, field, _ in stream.held()] == ["d", "d", "t"]


def test_infinity_in_a_copied_file_is_kept_as_postgresql_has_it(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream()
    stream.sync(copy_file(tmp_path / "a.csv", "1,infinity\n2,\n", id=pa.int64(), t=pa.timestamp("us", "UTC")))
    assert stream.values("t") == ["infinity", None]
