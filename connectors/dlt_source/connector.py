"""One dlt source, opened: its resources are iterated on a state of ours; nothing of dlt loads or keeps anything."""

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import dlt
from dlt.common import pendulum
from dlt.common.json import json as dlt_json
from dlt.extract import DltResource, DltSource

from connectors.contract import (
    Attestation,
    Checkpoint,
    DiscoveredColumn,
    DiscoveredStream,
    Hints,
    Message,
    ReadContext,
    StreamState,
    Window,
)
from connectors.dlt_source.failures import classified
from connectors.dlt_source.items import messages, size_bytes
from connectors.dlt_source.iteration import items_of
from connectors.errors import Cancelled, ConfigError, ContractError
from connectors.secrets import is_reference, resolve
from connectors.specs import SourceSpec, did_you_mean

if TYPE_CHECKING:
    from connectors.kinds.dlt_source import DltConnectorSpec, DltStreamSpec

_MAX_HASHES: Final = 1_000
_TYPES: Final[Mapping[str, str]] = {"wei": "decimal"}


class DltConnector:
    """Makes the source anew for every read: a dlt resource can be iterated once."""

    def __init__(self, source: SourceSpec, spec: "DltConnectorSpec") -> None:
        self._name = source.source
        self._streams = source.streams
        self._place = spec.source
        where = f"{source.source}: connector"
        secrets = {key: resolve(value, f"{where}.secrets.{key}") for key, value in spec.secrets.items()}
        self._secrets = tuple(secrets.values())
        self._arguments = {**_resolved(spec.arguments, f"{where}.arguments"), **secrets}
        self._make = _imported(spec.source, f"{where}.source")

    def check(self) -> str:
        """The first item of the first stream."""
        stream = cast("DltStreamSpec", self._streams[0])
        found = self._resource(self._source(), stream)
        with closing(self._items(found, {}, stream)) as items:
            came = next(items, None) is not None
        return f"{self._place} answered; {stream.name}: {'an' if came else 'no'} item came"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        """What the resources say of themselves: keys and columns as far as they are hinted."""
        with classified(self._name, self._place, self._secrets):
            resources = self._source().resources
            return tuple(_discovered(name, resource) for name, resource in resources.items())

    def read(self, stream: "DltStreamSpec", state: StreamState, context: ReadContext) -> Iterator[Message]:
        """The resource's items after its own state in `state.connector`, or inside the window.

        The state is the resource's, as dlt keeps it; it is sealed once, at the end: what dlt resources keep of their
        position is true only then.
        """
        label = f"{self._name}.{stream.name}"
        position = cast("dict[str, Any]", dlt_json.typed_loads(dlt_json.dumps(dict(state.connector))))
        found = self._resource(self._source(), stream)
        if context.window is not None:
            _bound(found, stream, context.window, label)
        count = 0
        with closing(self._items(found, position, stream)) as items:
            for message in messages(items):
                if context.cancelled.is_set():
                    raise Cancelled(label, "stopped between two items", "Start the sync again; it reads anew.")
                context.usage.received_bytes += size_bytes(message)
                yield message
                count += not isinstance(message, Hints)
                if count == context.page_limit:
                    return
        if context.window is None:
            yield Checkpoint(connector=_kept(position, stream, label), is_ordered=False)
        if not count and state.connector and context.window is None:
            yield Attestation(nothing_new=True)

    def _source(self) -> DltSource:
        try:
            inspect.signature(self._make).bind(**self._arguments)
        except TypeError as error:
            hint = "Name what it takes in connector.arguments or connector.secrets."
            raise ConfigError(f"{self._name}: connector", f"{self._place}: {error}", hint) from error
        with classified(self._name, self._place, self._secrets):
            made = self._make(**self._arguments)
        if isinstance(made, DltResource):
            # the source that dlt makes of a resource when a pipeline runs it
            return dlt.source(lambda: made, name=made.source_name or made.name, section=made.section)()
        if isinstance(made, DltSource):
            return made
        what = f"{self._place} made a {type(made).__name__}, not a dlt source or resource"
        raise ConfigError(f"{self._name}: connector.source", what, "Decorate it with @dlt.source or @dlt.resource.")

    def _resource(self, source: DltSource, stream: "DltStreamSpec") -> DltSource:
        """The source with this resource alone, its parents beside it."""
        names = list(source.resources)
        if stream.resource_name not in names:
            hint = did_you_mean(stream.resource_name, names)
            raise ConfigError(f"{self._name}.{stream.name}", f"no resource {stream.resource_name!r} in it", hint)
        return source.with_resources(stream.resource_name)

    def _items(self, source: DltSource, state: dict[str, Any], stream: "DltStreamSpec") -> Generator[Any]:
        with classified(f"{self._name}.{stream.name}", self._place, self._secrets):
            yield from items_of(source, state)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Nothing is open between reads."""


def _imported(place: str, where: str) -> Callable[..., object]:
    name, _, attribute = place.partition(":")
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        what = f"no module {error.name}" if error.name else f"{name} cannot be imported"
        raise ConfigError(where, what, "Put it beside the project's packages, or install it.") from error
    except Exception as error:
        what = f"{name} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(where, what, "Correct the module; `--debug` shows where.") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(where, f"{name} has no function {attribute}", did_you_mean(attribute, known))
    return found


def _resolved(value: Any, where: str) -> Any:
    match value:
        case str() if is_reference(value):
            return resolve(value, where)
        case Mapping():
            items = cast("Mapping[str, Any]", value).items()
            return {key: _resolved(item, f"{where}.{key}") for key, item in items}
        case list() | tuple():
            return [_resolved(item, f"{where}[{n}]") for n, item in enumerate(cast("Sequence[Any]", value))]
        case _:
            return value


def _discovered(name: str, resource: DltResource) -> DiscoveredStream:
    schema = resource.compute_table_schema()
    columns = schema.get("columns") or {}
    return DiscoveredStream(
        name,
        tuple(
            DiscoveredColumn(key, _TYPES.get(str(kind), str(kind)), is_nullable=bool(column.get("nullable", True)))
            for key, column in columns.items()
            if (kind := column.get("data_type"))
        ),
        tuple(key for key, column in columns.items() if column.get("primary_key")),
    )


def _bound(source: DltSource, stream: "DltStreamSpec", window: Window, label: str) -> None:
    """A window's read: dlt's own bounds on the cursor, which then touches no state."""
    resource = source.resources[stream.resource_name]
    own = getattr(resource.incremental, "incremental", resource.incremental)
    path = stream.cursor.field if stream.cursor is not None else getattr(own, "cursor_path", None)
    if path is None:
        hint = "Set cursor: {field: ...}, or take partitions out."
        raise ConfigError(f"{label}: partitions", "neither the stream nor its resource has a cursor", hint)
    bounds: tuple[Any, Any] = (pendulum.instance(window.start), pendulum.instance(window.end))
    if isinstance(getattr(own, "initial_value", None), str):
        bounds = (window.start.isoformat(), window.end.isoformat())
    resource.apply_hints(incremental=dlt.sources.incremental(path, initial_value=bounds[0], end_value=bounds[1]))


def _kept(state: dict[str, Any], stream: "DltStreamSpec", label: str) -> dict[str, Any]:
    """What is saved: without the hashes by which dlt knows rows of its last cursor value, where the engine knows them.

    Raises:
        ContractError: so many rows have one cursor value that they do not fit a state.
    """
    for resource in cast("dict[str, dict[str, Any]]", state.get("resources", {})).values():
        for cursor in cast("dict[str, dict[str, Any]]", resource.get("incremental", {})).values():
            if stream.cursor is not None or stream.primary_key:
                cursor["unique_hashes"] = []
            elif len(cursor.get("unique_hashes", ())) > _MAX_HASHES:
                raise ContractError(
                    label,
                    f"{len(cursor['unique_hashes']):,} rows have the newest cursor value; dlt keeps a hash of each",
                    "Set cursor: {field: ...} or a primary_key, so that rows read twice are known without them.",
                )
    return cast("dict[str, Any]", dlt_json.loads(dlt_json.typed_dumps(state)))
