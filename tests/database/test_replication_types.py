"""A value that comes out of the log is the value that a read of the table gives, in every type."""

from platform_assets.warehouse import Warehouse
from tests.database.replicating import Source, named, raw, run

TYPES: dict[str, tuple[str, ...]] = {
    "numeric": ("'NaN'", "'Infinity'", "'-Infinity'", "1e-40"),
    "numeric(12,2)": ("'NaN'", "-0.01"),
    "double precision": ("'NaN'", "'-Infinity'", "5e-324", "0.1"),
    "real": ("3.4028235e38",),
    "date": ("'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'"),
    "timestamp": ("'infinity'", "'0044-03-15 BC 12:00:00.000001'"),
    "timestamptz": ("'-infinity'", "'2024-03-31 02:30:00+02'", "'294276-12-31 23:59:59+00'"),
    "time": ("'24:00'",),
    "timetz": ("'12:00+14'",),
    "interval": ("'-1 year 2 mons -3 days 04:05:06.7'",),
    "bytea": ("'\\x00ff'", "''"),
    "text": ("''", "E'a\\\\b\\n\"c\",\\t'", "'\\N'", "'ü😀'"),
    "char(5)": ("'ab'",),
    "boolean": ("false",),
    "bigint": ("-9223372036854775808",),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",),
    "json": ('\'{"a":  1, "a": 2}\'',),
    "jsonb": ("'{\"a\": 1e400}'", "'null'"),
    "inet": ("'192.168.0.1/24'",),
    "cidr": ("'::/0'",),
    "macaddr": ("'08:00:2b:01:02:03'",),
    "bit(3)": ("B'101'",),
    "varbit": ("B''",),
    "money": ("'-92233720368547758.08'",),
    "oid": ("4294967295",),
    "point": ("'(1,2)'",),
    "tsvector": ("'a b'",),
    "int4range": ("'[1,5)'", "'empty'"),
    "datemultirange": ("'{[2024-01-01,2024-02-01)}'",),
    "mood": ("'fine, thanks'",),
    "pair": ("row(1, null)",),
    "short": ("'dom'",),
    "int[]": ("'{}'", "'{1,null}'", "'{{1},{2}}'"),
    "text[]": ("array['a,b', '', null, '\"']",),
    "mood[]": ("array['fine, thanks']::mood[]",),
    "pair[]": ("array[row(1,2)]::pair[]",),
    "timestamptz[]": ("array['infinity', '2024-01-01+01']::timestamptz[]",),
    "numeric[]": ("'{NaN,1.50}'",),
}


def test_a_value_out_of_the_log_is_the_value_of_the_first_read_in_every_type(
    source: Source, source_url: str, warehouse: Warehouse
) -> None:
    source.execute("set synchronous_commit = on")
    source.execute("create type mood as enum ('fine, thanks')")
    source.execute("create type pair as (a int, b int)")
    source.execute("create domain short as varchar(5)")
    values = [(kind, value) for kind, several in TYPES.items() for value in several]
    columns = ", ".join(f"c{number} {kind}" for number, (kind, _) in enumerate(values))
    source.execute(f"create table orders (id int primary key, {columns})".encode())
    source.execute("create publication shop for table orders")
    row = ", ".join(value for _, value in values)
    source.execute(f"insert into orders values (1, {row})".encode())
    source.execute("insert into orders (id) values (2)")
    with named(source_url):
        run(warehouse)
    source.execute(f"insert into orders values (3, {row})".encode())
    source.execute("insert into orders (id) values (4)")
    with named(source_url):
        run(warehouse)

    texts = ", ".join(f"c{number}::text" for number in range(len(values)))
    first, null, log, none = raw(warehouse, f"select {texts} from raw_shop.orders order by id")
    assert log == first
    assert None not in first
    assert {*null, *none} == {None}
    assert {kind: value for (kind, _), value in zip(values, first, strict=True)}["numeric[]"] == '["NaN", 1.50]'
