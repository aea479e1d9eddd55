"""`headwater dbt build`: dbt's own build in this process, marts beside the served ones until their tests have passed.

dbt's other commands that build have no tests to wait for: of them what touches no mart runs as it is.

Run as a process of its own (`python -m platform_assets.dbt.audited build <words>`) in the environment of
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

from click import ClickException
from click.core import ParameterSource
from dbt.cli.main import cli, dbtRunner, dbtRunnerResult
from psycopg.conninfo import make_conninfo

from connectors.errors import ConfigError, HeadwaterError
from platform_assets.dbt import beside
from platform_assets.dbt.gone import say_missing
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.dbt.served import remember
from platform_assets.settings import load_settings

_SELECTING = ("select", "exclude", "selector")
_ONLY_BATCHES = ("event_time_start", "event_time_end")
"""A microbatch model that is built anew has no batches but those between the two."""


def main(name: str, words: Sequence[str]) -> int:
    """dbt's exit code; 10 when dbt did well and the marts could not be published.

    Raises:
        ConfigError: another command than `build` would build marts, or models would be built without all their rows.
    """
    asked = options_of(name, words)
    settings = load_settings()
    project_dir = Path(os.environ["DBT_PROJECT_DIR"])
    manifest = prepared_manifest(project_dir, settings)
    read = read_manifest(manifest)
    graph = Graph(read)
    if name == "build":
        # only now: the manifest says where marts are served
        os.environ.update(beside.BESIDE)
    state = next(str(folder) for folder in (asked["state"], manifest.parent) if folder)
    dbt = dbtRunner()
    listed = _listed(dbt, asked, state)
    if not listed.success:
        return _exit_code(listed)
    models: list[str] = [json.loads(line)["unique_id"] for line in cast("list[str]", listed.result or ())]
    if name != "build":
        _refuse_marts(name, graph, models)
        result = dbt.invoke([name, *words])
        say_missing(_dsn(), read, graph, [id_ for id_ in models if _statuses(result).get(id_) == "success"])
        return _exit_code(result)
    defer = [] if asked["defer"] else beside.beside_words(state)
    dsn = _dsn()
    with beside.locked(dsn, graph, models):
        if not asked["full_refresh"]:
            beside.copy_served(dsn, graph, models)
        result = dbt.invoke([name, *words, *defer])
        if result.exception is not None and result.result is None:
            return _exit_code(result)
        found = _statuses(result)
        judged = beside.judge(graph, models, found, beside.never_served(dsn, graph))
        beside.publish(dsn, [graph.models[id_].name for id_ in judged.published])
    done = beside.done(models, found, judged)
    say_missing(dsn, read, graph, done)
    remember(settings, manifest, done)
    for id_ in judged.published:
        print(f"published {graph.models[id_].relation}")
    for id_, reason in judged.held.items():
        served = graph.models[id_]
        print(f"not published {served.relation}: {reason}; what was built is {beside.NEXT}.{served.name}")
    return _exit_code(result)


def options_of(name: str, words: Sequence[str]) -> dict[str, Any]:
    """dbt's options by their names, from these words and the environment as dbt reads both.

    Raises:
        ConfigError: one of them makes dbt leave rows out.
    """
    context = cli.commands[name].make_context(name, list(words))
    options = context.params
    for option in ("empty", "sample", *(_ONLY_BATCHES if options.get("full_refresh") else ())):
        if not options.get(option):
            continue
        flag = f"--{option.replace('_', '-')}"
        if context.get_parameter_source(option) is ParameterSource.ENVIRONMENT:
            flag += f" (DBT_{option.upper()} in the environment)"
        raise beside.partial_error(f"headwater dbt {name}", flag)
    return options


def _listed(dbt: dbtRunner, asked: dict[str, Any], state: str) -> dbtRunnerResult:
    """Lines of JSON with the unique ids of the models that were asked for."""
    words = ["ls", "--quiet", "--resource-type", "model", "--output", "json", "--output-keys", "unique_id"]
    for name in _SELECTING:
        value: str | Sequence[str] | None = asked[name]
        if value:
            words += [f"--{name}", *([value] if isinstance(value, str) else value)]
    with contextlib.redirect_stdout(io.StringIO()):
        return dbt.invoke([*words, "--state", state])


def _refuse_marts(name: str, graph: Graph, models: Sequence[str]) -> None:
    marts = sorted(graph.models[id_].relation for id_ in beside.marts_of(graph, models))
    if marts:
        more = f" and {len(marts) - 3} more" if len(marts) > 3 else ""
        raise ConfigError(
            f"headwater dbt {name}",
            f"would change {', '.join(marts[:3])}{more} before any test has passed",
            "Use `headwater dbt build`, which serves marts once their tests have passed; or add `--in-place`.",
        )


def _statuses(result: dbtRunnerResult) -> dict[str, str]:
    """Unique id to status; nothing when dbt did not come that far."""
    return {one.node.unique_id: str(one.status) for one in cast("Any", result.result or ())}


def _exit_code(result: dbtRunnerResult) -> int:
    if result.exception is not None and result.result is None:
        sys.stderr.write(f"{result.exception}\n")
        return 2
    return 0 if result.success else 1


def _dsn() -> str:
    """The transformer's, from the variables that profiles.yml reads."""
    names = {"host": "HOST", "port": "PORT", "dbname": "DATABASE", "user": "USER", "password": "PASSWORD"}
    return make_conninfo(
        **{key: os.environ[f"HEADWATER_DBT_{name}"] for key, name in names.items()},
        sslmode=os.environ["HEADWATER_DBT_SSLMODE"],
    )


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HeadwaterError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
