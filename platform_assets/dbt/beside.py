"""Write, audit, publish: marts are built in `marts__next`, tested there, then moved to `marts` in one transaction.

dbt builds beside when the environment says so (`BESIDE`); every mart that a run does not build is read where it is
served. What was served before stays in `marts__last` until the next publication of that mart.
"""

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.errors import ConfigError, LoaderError
from platform_assets.dbt.graph import Graph

# imported where a session is opened: definitions load without a database library
if TYPE_CHECKING:
    import psycopg

SERVED, NEXT, LAST = "marts", "marts__next", "marts__last"
BESIDE: Mapping[str, str] = {"HEADWATER_DBT_MARTS": NEXT.removeprefix(SERVED)}
# first key of the advisory locks that models take; the second is a hash of the relation
_LOCK_CLASS = 0x0DB7
PARTIAL = ("DBT_EMPTY", "DBT_ENGINE_EMPTY", "DBT_SAMPLE", "DBT_ENGINE_SAMPLE")
"""Variables that dbt reads as its flags `--empty` and `--sample`."""
_OFF = frozenset({"", "0", "false", "f", "no", "n", "off"})
_GOOD = frozenset({"success", "pass", "warn", "no-op"})


@dataclass(frozen=True, slots=True)
class Judged:
    """published: marts that may be served. held: built, but not to be served, with the reason. Unique ids."""

    published: tuple[str, ...]
    held: Mapping[str, str]


def marts_of(graph: Graph, models: Iterable[str]) -> frozenset[str]:
    """Those of the models that are built beside."""
    return frozenset(id_ for id_ in models if graph.models[id_].schema == SERVED and id_.startswith("model."))


def refuse_partial(where: str, environment: Mapping[str, str]) -> None:
    """Raises ConfigError: dbt would leave rows out of what it builds, because a variable says so."""
    for name in PARTIAL:
        if environment.get(name, "").strip().lower() not in _OFF:
            raise partial_error(where, f"{name} in the environment")


def partial_error(where: str, said: str) -> ConfigError:
    """said: the flag or variable that makes dbt leave rows out."""
    return ConfigError(
        where,
        f"{said} builds models without all of their rows, and what is built is published",
        "Leave it out. To only try models, use a warehouse that nobody reads: "
        "HEADWATER_WAREHOUSE_URL=... headwater dbt build --in-place ...",
    )


@contextmanager
def locked(dsn: str, graph: Graph, models: Iterable[str]) -> Generator[None]:
    """Two runs that build the same model take turns; taken in one order, so neither waits for the other for ever."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as session:
        for relation in sorted(graph.models[id_].relation for id_ in models):
            session.execute("select pg_advisory_lock(%s, hashtext(%s))", (_LOCK_CLASS, relation))
        yield


def beside_words(state: str) -> list[str]:
    """dbt's words for reading what this run does not build where it is served. state: folder of the manifest."""
    return ["--defer", "--favor-state", "--state", state]


def built_beside(manifest: Mapping[str, Any], graph: Graph, models: Iterable[str]) -> Mapping[str, Any]:
    """The manifest with these models' marts where they are built, for whoever looks at what dbt made."""
    nodes = dict(manifest["nodes"])
    for id_ in marts_of(graph, models):
        node = nodes[id_]
        place = str(node["relation_name"]).replace(f'"{SERVED}"', f'"{NEXT}"')
        nodes[id_] = {**node, "schema": NEXT, "relation_name": place}
    return {**manifest, "nodes": nodes}


def copy_served(dsn: str, graph: Graph, models: Iterable[str]) -> None:
    """Give each incremental mart a copy of what is served, for dbt to add to; a first build starts from nothing."""
    import psycopg
    from psycopg.sql import SQL, Identifier

    for id_ in sorted(marts_of(graph, models)):
        model = graph.models[id_]
        if model.materialized != "incremental":
            continue
        served, coming = Identifier(SERVED, model.name), Identifier(NEXT, model.name)
        with psycopg.connect(dsn) as session:
            session.execute(SQL("drop table if exists {} cascade").format(coming))
            if _kind(session, SERVED, model.name) == "r":
                session.execute(SQL("create table {} (like {} including all)").format(coming, served))
                session.execute(SQL("insert into {} select * from {}").format(coming, served))


def statuses(target: Path) -> Mapping[str, str]:
    """Unique id to status of what a dbt process did; nothing when it did not come that far."""
    path = target / "run_results.json"
    results = json.loads(path.read_bytes())["results"] if path.is_file() else []
    return {result["unique_id"]: result["status"] for result in results}


def never_served(dsn: str, graph: Graph) -> frozenset[str]:
    """Unique ids of the marts that no reader has yet."""
    import psycopg

    with psycopg.connect(dsn) as session:
        found = session.execute("select relname from pg_class where relnamespace = %s::regnamespace", [SERVED])
        served = {str(name) for (name,) in found}
    return frozenset(id_ for id_ in marts_of(graph, graph.models) if graph.models[id_].name not in served)


def judge(
    graph: Graph, models: Iterable[str], found: Mapping[str, str], unserved: frozenset[str] = frozenset()
) -> Judged:
    """Which of the marts that dbt built may be served: those whose own blocking tests, and whatever those tests and the
    marts themselves read among the marts of this run, came out well.

    A test that fails is the fault of the mart that it is written at; where this run does not build that one, of every
    mart of the run that the test reads: what is served has not changed. Where that one was never served, none is held.

    found: what `statuses` gives. unserved: what `never_served` gives.
    """
    asked = marts_of(graph, models)
    marts = {id_ for id_ in asked if found.get(id_) == "success"}
    held: dict[str, str] = {}
    readers = dict(graph.shared_tests) | {
        test.unique_id: (test.model, *test.others) for test in graph.tests.values() if test.is_blocking
    }
    for test, read in readers.items():
        if test in found and found[test] not in _GOOD:
            # a shared test is written at no model
            is_others = test in graph.shared_tests or read[0] not in asked | unserved
            judged = read if is_others else read[:1]
            held.update(dict.fromkeys(marts.intersection(judged), f"test {test.split('.')[2]}: {found[test]}"))
    broken = asked - marts
    while True:
        bad = broken | set(held)
        more = {
            id_: f"reads {graph.models[other].relation}, which is not published"
            for id_ in marts - set(held)
            for other in sorted(bad & (graph.ancestors(id_) | _tested_against(graph, id_)))
        }
        if not more:
            return Judged(tuple(sorted(marts - set(held))), held)
        held |= more


def done(models: Iterable[str], found: Mapping[str, str], judged: Judged) -> list[str]:
    """What is now as its code says: built well, and published where it is a mart."""
    return [id_ for id_ in models if found.get(id_) == "success" and id_ not in judged.held]


def publish(dsn: str, names: Sequence[str]) -> None:
    """Move the named marts from `marts__next` to `marts`, in one transaction; those served before go to `marts__last`.

    Raises:
        LoaderError: PostgreSQL refused, or a mart was read without a pause for a minute. Nothing changed.
    """
    _exchange(dsn, NEXT, LAST, names)


def roll_back(dsn: str, names: Sequence[str]) -> tuple[str, ...]:
    """Serve what was served before the last publication of these marts, of all that have such a version when none is
    named; the version taken back stays in `marts__next`. The names.

    Raises:
        ConfigError: a mart has no version to go back to.
        LoaderError: as `publish`.
    """
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as session:
        found = session.execute(
            "select relname from pg_class where relnamespace = %s::regnamespace and relkind in ('r', 'v')", [LAST]
        ).fetchall()
    kept = {str(name) for (name,) in found}
    missing = sorted(set(names) - kept)
    if missing or not kept:
        raise ConfigError(
            ", ".join(f"{SERVED}.{name}" for name in missing) or SERVED,
            "has no version to go back to: one is kept from the second publication on, and each is used once",
            f"There are {', '.join(sorted(kept)) or 'none at all'}. Mend the model and build it again.",
        )
    chosen = tuple(sorted(names or kept))
    _exchange(dsn, LAST, NEXT, chosen)
    return chosen


def _exchange(dsn: str, coming: str, going: str, names: Sequence[str]) -> None:
    if not names:
        return
    import psycopg

    try:
        with psycopg.connect(dsn) as session:
            session.execute("select ops.exchange_marts(%s, %s, %s)", [coming, going, list(names)])
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error)
        hint = error.diag.message_hint or "Nothing changed: the marts are served as they were."
        raise LoaderError(", ".join(f"{SERVED}.{name}" for name in names[:5]), said, hint) from error


def _tested_against(graph: Graph, mart: str) -> set[str]:
    return {other for test in graph.tests_of.get(mart, ()) if test.is_blocking for other in test.others}


def _kind(session: "psycopg.Connection[Any]", schema: str, name: str) -> str | None:
    row = session.execute(
        "select relkind::text from pg_class where relnamespace = %s::regnamespace and relname = %s", [schema, name]
    ).fetchone()
    return row[0] if row else None
