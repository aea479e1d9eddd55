"""dbt's files from the contract: the source of every stream, and skeletons of staging models and marts.

Sources are generated whole, so nobody edits them. A skeleton is a pair, `.sql` and `.yml`, which follows the contract
until one of the two is edited; from then on both belong to their author.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from connectors.specs import FreshnessSpec, SourceSpec, StreamSpec
from platform_assets.contracts.targets import Target, in_staging_order, targets

_OWN = (("_synced_at", "timestamptz", "synced_at"), ("_deleted", "boolean", "deleted"),
        ("_dlt_load_id", "text", "dlt_load_id"))  # fmt: skip
"""The engine's own columns, and the doc blocks of dbt_project/models/docs.md that describe them."""
SYNCED_AT = "{{ doc('synced_at') }}"
_MARK = re.compile(r"# Skeleton of (\S+): [^\n]* ([0-9a-f]{16})\n")
"""First line of a skeleton's `.yml`: its stream, and a checksum of the pair as it was written."""


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """path: below the dbt project. is_skeleton: of a pair that may have come to be its author's."""

    path: Path
    text: str
    is_skeleton: bool = False

    def differs(self, project: Path) -> bool:
        place = project / self.path
        if not place.is_file():
            return True
        is_theirs = self.is_skeleton and not unedited(place)
        return not is_theirs and place.read_text(encoding="utf-8") != self.text

    def write(self, project: Path) -> None:
        place = project / self.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(self.text, encoding="utf-8")


def out_of_step(sources: Iterable[SourceSpec], project: Path) -> list[GeneratedFile]:
    """Generated files that the dbt project lacks or has otherwise."""
    return [
        file for source in sources for file in (*generated(source), *_marts(source, project)) if file.differs(project)
    ]


def generated(source: SourceSpec) -> Iterator[GeneratedFile]:
    """The source's file, and a staging skeleton of each stream."""
    folder = Path("models", "staging", source.source)
    yield GeneratedFile(folder / f"{source.source}.yml", source_yaml(source))
    for stream in source.streams:
        path = folder / staging_model(source, stream)
        yield from _pair(
            path, f"{source.source}.{stream.name}", staging_sql(source, stream), staging_yaml(source, stream)
        )


def _pair(path: Path, stream: str, sql: str, yaml: str) -> tuple[GeneratedFile, GeneratedFile]:
    """path: without an ending. stream: as source.stream."""
    says = "`headwater contract write` keeps the pair in step until its .sql or .yml is edited"
    mark = f"# Skeleton of {stream}: {says}; {_checksum(sql, yaml)}\n"
    return (
        GeneratedFile(path.with_suffix(".sql"), sql, is_skeleton=True),
        GeneratedFile(path.with_suffix(".yml"), mark + yaml, is_skeleton=True),
    )


def unedited(place: Path) -> str:
    """The stream of a skeleton of which both files are as they were written; empty where there is none."""
    try:
        sql, yaml = (place.with_suffix(end).read_text(encoding="utf-8") for end in (".sql", ".yml"))
    except FileNotFoundError:
        return ""
    mark = _MARK.match(yaml)
    return mark[1] if mark and mark[2] == _checksum(sql, yaml[mark.end() :]) else ""


def _checksum(sql: str, yaml: str) -> str:
    return sha256(f"{sql}\0{yaml}".encode()).hexdigest()[:16]


def _marts(source: SourceSpec, project: Path) -> Iterator[GeneratedFile]:
    """Of the source's streams, where a mart was asked for and nobody edited it."""
    for stream in source.streams:
        for place in sorted((project / "models" / "marts").glob(f"*/{stream.name}.yml")):
            if unedited(place) == f"{source.source}.{stream.name}":
                yield from mart_files(source, stream, place.parent.name)


def staging_model(source: SourceSpec, stream: StreamSpec) -> str:
    return f"stg_{source.source}__{stream.name}"


def source_yaml(source: SourceSpec) -> str:
    lines = [
        "# Written by `headwater contract write` from this source's defs.yaml; a change made here is overwritten.",
        "sources:",
        f"  - name: {source.source}",
        *([f"    description: {_scalar(_plain(source.description))}"] if source.description else []),
        f"    schema: {source.schema_name}",
        "    tables:",
    ]
    for stream in source.streams:
        lines += [
            f"      - name: {stream.name}",
            f"        description: {_scalar(_described(source, stream))}",
            "        config:",
            "          loaded_at_field: _synced_at",
            *_freshness(stream.freshness),
            "        columns:",
            *(f"          - {flow(_column(column))}" for column in targets(stream) if not column.is_blocked),
            *(
                f"          - {flow({'name': name, 'data_type': kind, 'description': f'{{{{ doc({doc!r}) }}}}'})}"
                for name, kind, doc in _OWN
            ),
        ]
    return "\n".join(lines) + "\n"


def _described(source: SourceSpec, stream: StreamSpec) -> str:
    return _plain(stream.description or source.description or f"{source.source}.{stream.name}")


def _column(column: Target) -> dict[str, Any]:
    spec = column.spec
    meta = {
        "unit": spec.unit,
        "pii": spec.pii if spec.pii != "none" else "",
        "rule": spec.rule if spec.rule != "keep" else "",
        "accepted_values": list(spec.accepted_values),
        "nullable": "" if column.nullable else False,
        "key": column.is_key or "",
    }
    kept = {name: value for name, value in meta.items() if value not in ("", [])}
    described = {"description": _plain(column.description)} if column.description != "." else {}
    return {
        "name": column.raw_name,
        "data_type": column.pg_type,
        **described,
        **({"config": {"meta": kept}} if kept else {}),
    }


def _freshness(spec: FreshnessSpec | None) -> list[str]:
    if spec is None:
        return []
    warn = [f"            warn_after: {_period(spec.warn_after)}"] if spec.warn_after else []
    return ["          freshness:", *warn, f"            error_after: {_period(spec.fail_after)}"]


def _period(length: timedelta) -> str:
    minutes = int(length.total_seconds() // 60)
    for period, size in (("day", 1440), ("hour", 60)):
        if minutes % size == 0:
            return f"{{count: {minutes // size}, period: {period}}}"
    return f"{{count: {minutes}, period: minute}}"


def staging_sql(source: SourceSpec, stream: StreamSpec) -> str:
    lines: list[str] = []
    last = ""
    for column in in_staging_order(targets(stream)):
        group = "key" if column.is_key else column.spec.type or "text"
        if last and group != last:
            lines.append("")
        last = group
        if column.is_blocked:
            lines.append(f"        -- blocked by the contract\n        null::{column.pg_type} as {column.name},")
        else:
            lines.append(f"        {column.raw_name}::{column.pg_type} as {column.name},")
    selected = "\n".join([*lines, ""] if lines else [])
    body = f"{selected}\n        _synced_at as synced_at" if selected else "        *"
    return f"""\
with source as (

    select * from {{{{ source('{source.source}', '{stream.name}') }}}}

),

renamed as (

    select
{body}
    from source
    where not coalesce(_deleted, false)

),

final as (

    select * from renamed

)

select * from final
"""


def staging_yaml(source: SourceSpec, stream: StreamSpec) -> str:
    lines = [
        "models:",
        f"  - name: {staging_model(source, stream)}",
        f"    description: {_scalar(_described(source, stream))}",
    ]
    if len(stream.primary_key) > 1:
        names = {one.source_name: one.name for one in targets(stream)}
        keys = ", ".join(names.get(key, key) for key in stream.primary_key)
        lines += ["    data_tests:", "      - unique_rows:", f"          arguments: {{columns: [{keys}]}}"]
    lines.append("    columns:")
    for column in in_staging_order(targets(stream)):
        lines += _model_column(column, stream, indent="      ")
    lines += ["      - name: synced_at", f'        description: "{SYNCED_AT}"']
    return "\n".join(lines) + "\n"


def mart_files(source: SourceSpec, stream: StreamSpec, domain: str) -> tuple[GeneratedFile, GeneratedFile]:
    """A mart of the stream alone, under an enforced contract: every column typed, keys and NOT NULL as constraints."""
    staging = staging_model(source, stream)
    columns = [column for column in in_staging_order(targets(stream)) if not column.is_blocked]
    selected = "".join(f"        {column.name},\n" for column in columns)
    sql = f"""\
with rows as (

    select * from {{{{ ref('{staging}') }}}}

),

final as (

    select
{selected}        synced_at
    from rows

)

select * from final
"""
    lines = ["models:", f"  - name: {stream.name}", f"    description: {_scalar(_described(source, stream))}"]
    keys = [column.name for column in columns if column.is_key]
    if keys:
        lines += ["    constraints:", f"      - {{type: primary_key, columns: [{', '.join(keys)}]}}"]
    lines.append("    columns:")
    for column in columns:
        lines += _model_column(column, stream, indent="      ", is_mart=True)
    lines += ["      - name: synced_at", "        data_type: timestamptz", f'        description: "{SYNCED_AT}"']
    path = Path("models", "marts", domain, stream.name)
    return _pair(path, f"{source.source}.{stream.name}", sql, "\n".join(lines) + "\n")


def _model_column(column: Target, stream: StreamSpec, indent: str, *, is_mart: bool = False) -> list[str]:
    lines = [f"- name: {column.name}"]
    if is_mart:
        lines.append(f"  data_type: {column.pg_type}")
    described = column.description if column.description != "." else f"Column {column.raw_name} of the source."
    lines.append(f"  description: {_scalar(_plain(described))}")
    said = {"unit": column.spec.unit, "pii": column.spec.pii.replace("none", "")}
    if meta := {name: value for name, value in said.items() if value}:
        lines.append(f"  config: {flow({'meta': meta})}")
    if is_mart and not column.nullable:
        lines.append("  constraints: [{type: not_null}]")
    tests: list[Any] = []
    if not is_mart and not column.nullable:
        tests.append("not_null")
    if not is_mart and column.is_key and len(stream.primary_key) == 1:
        tests.append("unique")
    if column.spec.accepted_values:
        tests.append({"accepted_values": {"arguments": {"values": list(column.spec.accepted_values)}}})
    if tests:
        lines.append(f"  data_tests: {flow(tests)}")
    return [indent + line for line in lines]


def _plain(text: str) -> str:
    """Text that dbt does not take for a template."""
    return f"{{% raw %}}{text}{{% endraw %}}" if "{{" in text or "{%" in text or "{#" in text else text


def _scalar(text: str) -> str:
    return flow([text])[1:-1]


def flow(value: Any) -> str:
    """One line of YAML."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Double quotes, as the files here have them."""

    def _text(dumper: Any, text: str) -> Any:
        is_bare = dumper.analyze_scalar(text).allow_flow_plain and yaml.safe_load(f"[{text}]") == [text]
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_bare else '"')

    Dumper.add_representer(str, _text)
    options: dict[str, Any] = {"default_flow_style": True, "sort_keys": False, "width": 1 << 20, "allow_unicode": True}
    return str(yaml.dump(value, Dumper=Dumper, **options)).strip()
