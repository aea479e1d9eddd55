"""`headwater dbt build`: dbt's own build in this process, marts beside the served ones until their tests have passed.

Run as a process of its own (`python -m platform_assets.dbt.audited <words of build>`) in the environment of
`dbt_environment`; dbt takes 2 s to import, so nothing else imports this module.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from dbt.cli.main import build as dbt_build
from dbt.cli.main import dbtRunner
from psycopg.conninfo import make_conninfo

from connectors.errors import HeadwaterError
from platform_assets.dbt import beside
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.dbt.served import remember
from platform_assets.settings import load_settings

_SELECTING = ("select", "exclude", "selector")


def main(words: Sequence[str]) -> int:
    """dbt's exit code; 10 when dbt did well and the marts could not be published."""
    settings = load_settings()
    project_dir = Path(os.environ["DBT_PROJECT_DIR"])
    manifest = prepared_manifest(project_dir, settings)
    graph = Graph(read_manifest(manifest))
    # only now: the manifest says where marts are served
    os.environ.update(beside.BESIDE)
    asked = dbt_build.make_context("build", list(words)).params
    state = next(str(folder) for folder in (asked["state"], manifest.parent) if folder)
    defer = [] if asked["defer"] else beside.beside_words(state)
    dbt = dbtRunner()
    models = _selected(dbt, asked, state)
    dsn = _dsn()
    with beside.locked(dsn, graph, models):
        if not asked["full_refresh"]:
            beside.copy_served(dsn, graph, models)
        result = dbt.invoke(["build", *words, *defer])
        if result.exception is not None and result.result is None:
            sys.stderr.write(f"{result.exception}\n")
            return 2
        found = {one.node.unique_id: str(one.status) for one in cast("Any", result.result)}
        judged = beside.judge(graph, models, found)
        beside.publish(dsn, [graph.models[id_].name for id_ in judged.published])
    remember(settings, manifest, beside.done(models, found, judged))
    for id_ in judged.published:
        print(f"published {graph.models[id_].relation}")
    for id_, reason in judged.held.items():
        name = graph.models[id_].name
        print(f"not published {graph.models[id_].relation}: {reason}; what was built is {beside.NEXT}.{name}")
    return 0 if result.success else 1


def _selected(dbt: dbtRunner, asked: dict[str, Any], state: str) -> list[str]:
    """Unique ids of the models of this build."""
    words = ["ls", "--quiet", "--resource-type", "model", "--output", "json", "--output-keys", "unique_id"]
    for name in _SELECTING:
        value: str | Sequence[str] | None = asked[name]
        if value:
            words += [f"--{name}", *([value] if isinstance(value, str) else value)]
    with contextlib.redirect_stdout(io.StringIO()):
        listed = dbt.invoke([*words, "--state", state])
    return [json.loads(line)["unique_id"] for line in cast("list[str]", listed.result or ())]


def _dsn() -> str:
    """The transformer's, from the variables that profiles.yml reads."""
    names = {"host": "HOST", "port": "PORT", "dbname": "DATABASE", "user": "USER", "password": "PASSWORD"}
    return make_conninfo(
        **{key: os.environ[f"HEADWATER_DBT_{name}"] for key, name in names.items()},
        sslmode=os.environ["HEADWATER_DBT_SSLMODE"],
    )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except HeadwaterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
