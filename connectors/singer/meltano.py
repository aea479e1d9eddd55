"""A Meltano project as source files and states. Nothing is run and nothing is written here.

Read of it: extractors with `inherit_from`, their lock files, the config, select and metadata of an environment,
schedules, and what `meltano state get` prints. Loaders, mappers and utilities have no counterpart.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from connectors.contract import MAX_STREAMS
from connectors.errors import ConfigError
from connectors.singer import state as states_of
from connectors.singer.catalog import Catalog
from connectors.singer.meltano_files import (
    environment,
    listed,
    lock_of,
    merged_plugin,
    over,
    read_text,
    read_yaml,
    set_outside,
    singer_state,
)
from connectors.specs import NAME, did_you_mean

Json = Mapping[str, Any]
_REFERENCE = re.compile(r"^\$(?:\{(\w+)\}|(\w+))$")
_SECRET = re.compile(r"passw|secret|token|api_?key|private|credential|auth_?key", re.IGNORECASE)
_CRON = re.compile(r"^(@(hourly|daily|weekly|monthly|yearly)|\S+ \S+ \S+ \S+ \S+)$")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class ImportedState:
    """One row to be: `state` as `ops.stream_state` keeps it. stream: ours, or `_shared`."""

    source: str
    stream: str
    state: Json


@dataclass(frozen=True, slots=True)
class Imported:
    """One extractor as a source file. notes: what the reader has to do or to know."""

    extractor: str
    source: str
    attributes: Json
    states: Sequence[ImportedState]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Beside the project: catalogs (`tap --discover`), states (`meltano state get`) and source names, by extractor."""

    environment: str | None = None
    catalogs: Mapping[str, Path] = field(default_factory=dict[str, Path])
    states: Mapping[str, Path] = field(default_factory=dict[str, Path])
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    owner: str = "team:data"


def read_project(path: Path, inputs: Inputs) -> tuple[Imported, ...]:
    """Every extractor of the project, in its order.

    Raises:
        ConfigError: the file is no Meltano project, or the environment, a catalog or a state is not there.
    """
    project = read_yaml(path)
    plugins = listed(project, "plugins", "extractors", where=str(path))
    for other in (found for pattern in project.get("include_paths", ()) for found in sorted(path.parent.glob(pattern))):
        if other != path:
            plugins += listed(read_yaml(other), "plugins", "extractors", where=str(other))
    if not plugins:
        raise ConfigError(str(path), "declares no extractors", "Is this the meltano.yml of the project?")
    names = [str(plugin["name"]) for plugin in plugins]
    for name in (*inputs.catalogs, *inputs.states, *inputs.names):
        if name not in names:
            raise ConfigError(str(path), f"no extractor {name!r}", did_you_mean(name, names))
    overrides = environment(project, inputs.environment, path)
    return tuple(_Extractor(project, path, plugins, overrides, inputs, name).imported() for name in names)


_UNREAD = ("select_filter", "schema", "catalog", "state", "load_schema")
"""Extras of Meltano's that have no counterpart."""


class _Extractor:
    """One extractor on its way to a source."""

    def __init__(
        self, project: Json, path: Path, plugins: list[dict[str, Any]], overrides: list[dict[str, Any]],
        inputs: Inputs, name: str,
    ) -> None:  # fmt: skip
        self._project = project
        self._folder = path.parent
        self._inputs = inputs
        self._name = name
        self._notes: list[str] = []
        self._plugin = over(lock_of(self._folder, plugins, name), merged_plugin(plugins, overrides, name))
        self._source = inputs.names.get(name) or source_name(name)

    def imported(self) -> Imported:
        catalog = self._catalog()
        streams = list(self._streams(catalog))
        for extra in _UNREAD:
            if self._plugin.get(extra):
                self._note(f"{extra} is not read: see that the streams are those that it leaves")
        attributes: dict[str, Any] = {"source": self._source, "owner": self._inputs.owner}
        attributes["connector"] = self._connector()
        if (cron := self._schedule()) is not None:
            attributes["defaults"] = {"schedule": cron}
        attributes["streams"] = streams
        if len(streams) > MAX_STREAMS:
            self._note(f"{len(streams)} streams, and a run has at most {MAX_STREAMS}: split the source file")
        if not streams:
            self._note("no stream could be told: give the tap's catalog, --catalog, and see select")
        states = tuple(self._states({str(item.get("stream", item["name"])): str(item["name"]) for item in streams}))
        return Imported(self._name, self._source, attributes, states, tuple(self._notes))

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    # the connector

    def _connector(self) -> dict[str, Any]:
        plugin = self._plugin
        connector: dict[str, Any] = {"kind": "singer"}
        requirements = _requirements(str(plugin.get("pip_url") or ""))
        if requirements:
            connector["package"] = requirements[0]
            if requirements[1:]:
                connector["requires"] = requirements[1:]
            if python := plugin.get("python"):
                connector["python"] = str(python).removeprefix("python")
        else:
            connector["executable"] = str(plugin.get("executable") or self._name)
            self._note("no pip_url: the tap is taken from PATH; set connector.package to have it installed")
        if requirements and plugin.get("executable"):
            connector["executable"] = plugin["executable"]
        config = self._settings(plugin.get("config") or {})
        for setting, variable in set_outside(self._folder, self._name, plugin.get("settings") or ()).items():
            if setting not in (plugin.get("config") or {}):
                config = over(config, self._settings({setting: f"${{{variable}}}"}))
                self._note(f"set {variable} in .env: Meltano has {setting} in the project's own")
        if config:
            connector["config"] = config
        if env := {str(key): self._value(str(key), value) for key, value in (plugin.get("env") or {}).items()}:
            connector["env"] = env
        capabilities = plugin.get("capabilities") or ()
        if "properties" in capabilities and "catalog" not in capabilities:
            connector["catalog_flag"] = "properties"
        return connector

    def _settings(self, config: Json, prefix: str = "") -> dict[str, Any]:
        """Nested where a name has dots, as Meltano writes them."""
        settings: dict[str, Any] = {}
        for name, value in config.items():
            place = settings
            *outer, last = str(name).split(".")
            for part in outer:
                place = place.setdefault(part, {})
            if isinstance(value, Mapping):
                place[last] = self._settings(cast("Json", value), f"{prefix}{name}_")
            else:
                place[last] = self._value(f"{prefix}{name}", value)
        return settings

    def _value(self, name: str, value: Any) -> Any:
        """References stay references; a secret that stands in the project becomes one."""
        if not isinstance(value, str):
            return [self._value(name, item) for item in value] if isinstance(value, list) else value
        if found := _REFERENCE.match(value):
            return f"env:{found[1] or found[2]}"
        if name in self._sensitive or (_SECRET.search(name) and value):
            variable = re.sub(r"\W", "_", f"{self._name}_{name}").upper()
            self._note(f"set {variable} in .env: the value of {name} stays out of the source file")
            return f"env:{variable}"
        if "$" in value:
            self._note(f"config.{name} holds a variable among other text, which is not replaced: {value!r}")
        return value

    @property
    def _sensitive(self) -> frozenset[str]:
        settings = cast("list[Json]", self._plugin.get("settings") or [])
        return frozenset(
            str(item["name"]) for item in settings if item.get("sensitive") or item.get("kind") == "password"
        )

    def _schedule(self) -> str | None:
        tasks = {str(job["name"]): str(job.get("tasks", "")) for job in self._project.get("jobs") or ()}
        for schedule in self._project.get("schedules") or ():
            said = str(schedule.get("extractor") or tasks.get(str(schedule.get("job")), ""))
            if re.search(rf"(?<![\w-]){re.escape(self._name)}(?![\w-])", said):
                interval = str(schedule.get("interval"))
                if _CRON.match(interval):
                    return interval
                self._note(f"schedule {schedule.get('name')} with interval {interval} is left out")
        return None

    # the streams

    def _catalog(self) -> Catalog | None:
        path = self._inputs.catalogs.get(self._name)
        if path is None and (own := self._plugin.get("catalog")):
            path = self._folder / str(own)
        if path is None:
            return None
        return Catalog.parse(read_text(path), str(path), "the file")

    def _streams(self, catalog: Catalog | None) -> Iterator[dict[str, Any]]:
        rules = [_rule(str(text)) for text in self._plugin.get("select") or ("*.*",)]
        known = {stream.name: stream for stream in catalog.streams()} if catalog else {}
        names = list(known) or list(dict.fromkeys(stream for stream, _, keeps in rules if keeps))
        for name in names:
            if not known and _WILD.search(name):
                self._note(f"select {name}.* needs the tap's catalog: give --catalog {self._name}=FILE")
                continue
            mine = [(column, keeps) for stream, column, keeps in rules if fnmatchcase(name, stream)]
            if not any(keeps for _, keeps in mine) or ("*", False) in mine:
                continue
            stream = self._stream(name, mine)
            if (found := known.get(name)) is not None and found.primary_key:
                stream["primary_key"] = list(found.primary_key)
                stream["write"] = stream.get("write", "merge")
            elif "write" not in stream:
                self._note(f"{stream['name']}: write: append, for its primary key is not known without a catalog")
            yield stream

    def _stream(self, name: str, rules: Sequence[tuple[str, bool]]) -> dict[str, Any]:
        stream: dict[str, Any] = {"name": stream_name(name)}
        if stream["name"] != name:
            stream["stream"] = name
        kept = [column for column, keeps in rules if keeps]
        if "*" not in kept:
            stream["select"] = kept
        if dropped := [column for column, keeps in rules if not keeps]:
            stream["exclude"] = dropped
        return stream | self._metadata(name)

    def _metadata(self, name: str) -> dict[str, Any]:
        """What the project's metadata says of a stream and of its columns."""
        stream: dict[str, Any] = {}
        about: dict[str, Any] = {}
        columns: dict[str, Any] = {}
        for pattern, items in (self._plugin.get("metadata") or {}).items():
            if fnmatchcase(name, str(pattern)):
                about |= {key: value for key, value in items.items() if not isinstance(value, Mapping)}
                columns |= {key: dict(value) for key, value in items.items() if isinstance(value, Mapping)}
        method = str(about.pop("replication-method", "")).lower().replace("-", "_")
        if method:
            stream["replication_method"] = method
        if key := about.pop("replication-key", None):
            stream["replication_key"] = key
        if method == "full_table":
            stream["write"] = "replace"
        if about:
            stream["metadata"] = about
        if columns:
            stream["column_metadata"] = columns
        return stream

    # the states

    def _states(self, streams: Mapping[str, str]) -> Iterator[ImportedState]:
        """streams: ours by the tap's."""
        path = self._inputs.states.get(self._name)
        if path is None:
            return
        bookmarks, rest = states_of.split(singer_state(path))
        if bookmarks is None:
            shared = {"data": rest, "streams": sorted(streams.values())}
            yield ImportedState(self._source, "_shared", {"connector": shared})
            return
        for name in list(bookmarks):
            if name in streams:
                position = states_of.position(name, bookmarks.pop(name))
                yield ImportedState(self._source, streams[name], {"connector": position})
        if bookmarks:
            rest["bookmarks"] = bookmarks
            self._note(f"bookmarks of streams that are not imported are kept: {', '.join(bookmarks)}")
        if rest:
            yield ImportedState(self._source, "_shared", {"connector": {"data": rest, "streams": []}})


def source_name(extractor: str) -> str:
    """tap-postgres--billing is postgres_billing."""
    return _slug(re.sub(r"^tap-", "", extractor)) or "tap"


def stream_name(stream: str) -> str:
    return _slug(stream)


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    slug = slug if re.match(r"[a-z]", slug) else f"s_{slug}"
    slug = slug[:51].rstrip("_")
    assert re.match(NAME, slug)
    return slug


def _rule(text: str) -> tuple[str, str, bool]:
    """`!stream.column`: the patterns of stream and column, and whether it keeps them. A dot in a name is `\\.`."""
    keeps = not text.startswith("!")
    stream, _, column = text.removeprefix("!").replace("\\.", "\0").partition(".")
    return stream.replace("\0", "."), (column or "*").replace("\0", "."), keeps


def _requirements(pip_url: str) -> list[str]:
    """`a==1 b<2 git+https://x`; options of pip and paths are nothing that can be locked."""
    words = pip_url.split()
    return [word for word in words if not word.startswith(("-", ".", "/", "$"))]
