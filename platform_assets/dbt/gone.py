"""Columns of a view that stand on a column which the source no longer sends say so, as the raw column does: whoever
builds on staging looks at the view. Said anew after each build, for dbt sets comments to the descriptions again."""

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from platform_assets.dbt.graph import Graph, Model

# imported where a session is opened: definitions load without a database library
if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)
Comments = Mapping[str, Mapping[str, str]]
"""Of relations as schema.table: every column, and its comment or ''."""


def say_missing(dsn: str, manifest: Mapping[str, Any], graph: Graph, built: Iterable[str]) -> None:
    """Comment on those columns of views that were built on sources.

    A comment that PostgreSQL refuses is logged: the build was good all the same.
    """
    import psycopg

    views = {id_: model for id_ in built if _is_on_sources(graph, model := graph.models[id_])}
    if not views:
        return
    try:
        with psycopg.connect(dsn) as session:
            _say(session, manifest, graph, views)
    except psycopg.Error as error:
        log.warning("comments on missing columns were refused views=%s error=%s", len(views), error)


def _is_on_sources(graph: Graph, model: Model) -> bool:
    return model.materialized == "view" and not graph.sources.keys().isdisjoint(model.parents)


def _say(
    session: "psycopg.Connection[Any]", manifest: Mapping[str, Any], graph: Graph, views: Mapping[str, Model]
) -> None:
    from psycopg.sql import SQL, Identifier, Literal

    from connectors.sync.gone import MARK
    from platform_assets.contracts.lineage import lineage

    read = {id_ for view in views.values() for id_ in view.parents if id_ in graph.sources}
    raw = _comments(session, [graph.sources[id_].relation for id_ in read])
    marks = {
        (relation, column): said
        for relation, columns in raw.items()
        for column, said in columns.items()
        if said.startswith(MARK)
    }
    present = _comments(session, [view.relation for view in views.values()])
    nodes = {id_: manifest["nodes"][id_] for id_ in views}
    # sqlglot takes its time: only when there is something to follow
    known = lineage({**manifest, "nodes": nodes}, raw).models if marks else {}
    for id_, view in views.items():
        described = {column.name: column.description for column in view.columns}
        for name, said in present.get(view.relation, {}).items():
            bases = known[id_].columns.get(name, frozenset()) if id_ in known else frozenset()
            missing = sorted({marks[base] for base in bases if base in marks})
            if missing or said.startswith(MARK):
                text = "\n\n".join([*missing, described.get(name, "").strip()]).strip()
                place = Identifier(view.schema, view.name, name)
                session.execute(SQL("comment on column {} is {}").format(place, Literal(text or None)))


def _comments(session: "psycopg.Connection[Any]", relations: Iterable[str]) -> Comments:
    found: dict[str, dict[str, str]] = {}
    for relation, column, said in session.execute(
        """
        select n.nspname || '.' || c.relname, a.attname, coalesce(col_description(c.oid, a.attnum), '')
        from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
        where n.nspname || '.' || c.relname = any(%s) and a.attnum > 0 and not a.attisdropped
        order by c.oid, a.attnum
        """,
        [list(relations)],
    ):
        found.setdefault(relation, {})[column] = said
    return found
