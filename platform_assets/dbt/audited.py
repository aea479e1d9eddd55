"""`headwater dbt build`: dbt's own build in this process, marts beside the served ones until their tests have passed.

dbt's other commands that build have no tests to wait for: of them what touches no mart runs as it is.

Run as a process of its own (`python -m platform_assets.cli.dbt_audited build <words>`) in the environment of
`dbt_environment`; dbt takes 2 s to import, so nothing else imports this module.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from click.core import ParameterSource
from dbt.cli.main import cli, dbtRunner, dbtRunnerResult
from psycopg.conninfo import make_conninfo

from connectors.errors import ConfigError, ContractError
from platform_assets.dbt import beside
from platform_assets.dbt.blocked import Blocked, FailedCheck, blocked_error, standing_on
from platform_assets.dbt.gone import say_missing
from platform_assets.dbt.graph import Graph, Key
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.dbt.served import remember
from platform_assets.settings import Settings, load_settings

_SELECTING = ("select", "exclude", "selector")
_ONLY_BATCHES = ("event_time_start", "event_time_end")
"""A microbatch model that is built anew has no batches but those between the two."""


IGNORE = "--ignore-failed-checks"
"""Of `build`: models are built over failed checks upstream."""
FailedChecks = Callable[[Sequence[Key]], Mapping[Key, Sequence[FailedCheck]]]
"""The blocking checks that streams fail now, by the streams' asset keys."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """words: the command line's, without our own. options: dbt's, by name. models: unique ids. state: a folder."""

    words: Sequence[str]
    options: Mapping[str, Any]
    models: Sequence[str]
    state: str


def main(name: str, words: Sequence[str], failed_checks: FailedChecks) -> int:
    """dbt's exit code; when dbt did well, 8 where a failed check upstream held models back, and 10 when the marts could
    not be published.

    Raises:
        ConfigError: another command than `build` would build marts, or models would be built without all their rows.
        ContractError: all that was asked for is held back.
    """
    is_over = name == "build" and IGNORE in words
    words = [word for word in words if not (is_over and word == IGNORE)]
    options = options_of(name, words)
    settings = load_settings()
    project_dir = Path(os.environ["DBT_PROJECT_DIR"])
    manifest = prepared_manifest(project_dir, settings)
    read = read_manifest(manifest)
    graph = Graph(read)
    if name == "build":
        # only now: the manifest says where marts are served
        os.environ.update(beside.BESIDE)
    state = next(str(folder) for folder in (options["state"], manifest.parent) if folder)
    dbt = dbtRunner()
    listed = _listed(dbt, options, state)
    if not listed.success:
        return _exit_code(listed)
    models: list[str] = [json.loads(line)["unique_id"] for line in cast("list[str]", listed.result or ())]
    if name != "build":
        _refuse_marts(name, graph, models)
        result = dbt.invoke([name, *words])
        say_missing(_dsn(), read, graph, [id_ for id_ in models if _statuses(result).get(id_) == "success"])
        return _exit_code(result)
    asked = _Asked(words, options, models, state)
    blocked = _blocked(graph, models, failed_checks)
    held_back = blocked_error(graph, blocked, f"add `{IGNORE}`") if blocked else None
    if held_back is None or is_over:
        if held_back is not None:
            sys.stderr.write(f"building over failed checks, as asked: {held_back.what}\n")
        return _built(dbt, settings, manifest, graph, asked)
    code = _built(dbt, settings, manifest, graph, _without(graph, asked, blocked, held_back), blocked)
    sys.stderr.write(f"{held_back}\n")
    return code or held_back.exit_code


def _built(
    dbt: dbtRunner, settings: Settings, manifest: Path, graph: Graph, asked: _Asked, blocked: Collection[str] = ()
) -> int:
    """Build, publish what passed, and say it. blocked: models that are left out. dbt's exit code."""
    models, dsn = asked.models, _dsn()
    defer = [] if asked.options["defer"] else beside.beside_words(asked.state)
    with beside.locked(dsn, graph, models):
        if not asked.options["full_refresh"]:
            beside.copy_served(dsn, graph, models)
        result = dbt.invoke(["build", *asked.words, *defer])
        if result.exception is not None and result.result is None:
            return _exit_code(result)
        found = _statuses(result)
        unserved = beside.never_served(dsn, graph)
        unasked = _unasked(graph, models, found, set(blocked) - unserved)
        judged = beside.judge(graph, models, found | unasked, unserved)
        beside.publish(dsn, [graph.models[id_].name for id_ in judged.published])
    done = beside.done(models, found, judged)
    say_missing(dsn, read_manifest(manifest), graph, done)
    remember(settings, manifest, done)
    for id_ in judged.published:
        print(f"published {graph.models[id_].relation}")
    for id_, reason in judged.held.items():
        served = graph.models[id_]
        print(f"not published {served.relation}: {reason}; what was built is {beside.NEXT}.{served.name}")
    return _exit_code(result)


def _blocked(graph: Graph, models: Sequence[str], failed_checks: FailedChecks) -> Blocked:
    """Tests of models upstream that are not built now have no ledger, so streams alone hold back."""
    upstream = frozenset[str]().union(*(graph.ancestors(id_) for id_ in models)) & graph.sources.keys()
    found: Mapping[Key, Sequence[FailedCheck]] = {}
    if upstream:
        found = failed_checks([graph.key(id_) for id_ in sorted(upstream)])

    def failed(ancestor: str) -> Sequence[FailedCheck]:
        return found.get(graph.key(ancestor), ())

    return standing_on(graph, models, failed)


def _without(graph: Graph, asked: _Asked, blocked: Blocked, held_back: ContractError) -> _Asked:
    """The same without these models, and without what the environment leaves out.

    Raises:
        ContractError: nothing else is asked for; or a selector of selectors.yml, beside which dbt leaves nothing out.
    """
    if asked.options["selector"]:
        what = f"{held_back.what}; --selector leaves nothing out, so nothing was built"
        raise ContractError(held_back.where, what, held_back.hint)
    models = [id_ for id_ in asked.models if id_ not in blocked]
    if not models:
        raise held_back
    left_out = [*(asked.options["exclude"] or ()), *sorted(graph.models[id_].selector for id_ in blocked)]
    return replace(asked, words=[*asked.words, "--exclude", *left_out], models=models)


def _unasked(graph: Graph, models: Sequence[str], found: Mapping[str, str], left_out: set[str]) -> dict[str, str]:
    """Blocking tests of these models that dbt left out together with a model that they read as well."""
    return {
        test.unique_id: f"not run, for {graph.models[other].relation} is held back"
        for id_ in models
        for test in graph.tests_of.get(id_, ())
        if test.is_blocking and test.unique_id not in found
        for other in sorted(left_out.intersection(test.others))
    }


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


def _listed(dbt: dbtRunner, asked: Mapping[str, Any], state: str) -> dbtRunnerResult:
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
