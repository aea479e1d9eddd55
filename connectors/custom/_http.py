"""The base of a bespoke connector that reads over HTTP."""

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, Final, Self, cast

from pydantic import ValidationError

from connectors.contract import DiscoveredStream, Message, ReadContext, StreamState
from connectors.errors import ConfigError
from connectors.http.client import HttpClient
from connectors.http.hooks import Hooks
from connectors.http.reader import open_rest
from connectors.http.source import HttpConnectorSpec, HttpStreamSpec, require_fit
from connectors.kinds.python import Given, PythonConnectorSpec, PythonStreamSpec
from connectors.secrets import is_reference
from connectors.specs import ConnectorSpec, Spec, StreamSpec, did_you_mean

_CONNECTOR_FACTS: Final = frozenset(HttpConnectorSpec.model_fields) - {"kind", "auth", "headers"}
_STREAM_FACTS: Final = frozenset(HttpStreamSpec.model_fields) - frozenset(StreamSpec.model_fields)


class HttpConnector:
    """An API of which some facts, or one step, cannot be declared.

    Class attributes are the keys of kind rest, without auth and headers, which hold references: those of the connector
    for the source, those of a stream for every stream (`path` may have {stream} in it). What the source file says wins.
    `rows`, `following` and `parameters` are defined only where a declaration does not suffice.
    """

    path: ClassVar[str] = "/{stream}"

    def __init__(self, given: Given) -> None:
        self.options = given.options
        self.secrets = given.secrets
        self._place = given.place
        self._facts = _facts(type(self), given.place)
        self._hooks = Hooks(type(self).__name__, *(self._own(name) for name in ("rows", "following", "parameters")))
        source = given.source
        merged = [self._merged(cast("PythonStreamSpec", stream)) for stream in source.streams]
        connector = self._merged_connector(cast("PythonConnectorSpec", source.connector))
        self._inner = open_rest(
            source.model_copy(update={"connector": connector, "streams": tuple(merged)}),
            self._hooks,
            secrets=tuple(given.secrets.values()),
        )

    def rows(self, stream: PythonStreamSpec, page: Any) -> Iterable[Mapping[str, Any]]:
        """The records of one decoded page."""
        raise NotImplementedError

    def following(self, stream: PythonStreamSpec, page: Any) -> Mapping[str, object] | str | None:
        """The parameters or the address of the page after this one; None at the end."""
        raise NotImplementedError

    def parameters(self, stream: PythonStreamSpec, since: str | None, until: str | None) -> Mapping[str, object]:
        """What bounds the read to [since, until), ISO 8601 or the cursor's own text; None is no bound."""
        raise NotImplementedError

    @property
    def client(self) -> HttpClient:
        return self._inner.client

    def check(self) -> str:
        return self._inner.check()

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return self._inner.discover()

    def read(self, stream: PythonStreamSpec, state: StreamState, context: ReadContext) -> Iterator[Message]:
        return self._inner.read(self._merged(stream), state, context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    def _own(self, name: str) -> Any:
        """The method when the class has one of its own."""
        return getattr(self, name) if getattr(type(self), name) is not getattr(HttpConnector, name) else None

    def _merged(self, stream: PythonStreamSpec) -> PythonStreamSpec:
        facts = {name: value for name, value in self._facts.items() if name in _STREAM_FACTS}
        facts["path"] = str(facts["path"]).replace("{stream}", stream.name)
        try:
            merged = PythonStreamSpec.model_validate({**facts, **_said(stream)})
            require_fit(merged, builds_parameters=self._hooks.parameters is not None)
        except ValidationError as error:
            raise _wrong(error, self._place) from error
        except ValueError as error:
            raise ConfigError(f"{self._place}: stream {stream.name}", str(error), "See docs/rest.md.") from error
        return merged

    def _merged_connector(self, spec: PythonConnectorSpec) -> HttpConnectorSpec:
        facts = {name: value for name, value in self._facts.items() if name in _CONNECTOR_FACTS}
        said = {name: value for name, value in _said(spec).items() if name in HttpConnectorSpec.model_fields}
        try:
            return HttpConnectorSpec.model_validate({**facts, **said, "kind": spec.kind})
        except ValidationError as error:
            raise _wrong(error, self._place) from error


def _said(spec: ConnectorSpec | StreamSpec) -> dict[str, Any]:
    """What the file says itself, defaults not."""
    return {name: getattr(spec, name) for name in spec.model_fields_set}


def _facts(found: type, place: str) -> dict[str, Any]:
    """The class's attributes, those of its bases below them.

    Raises:
        ConfigError: one is no key of kind rest, or holds a reference.
    """
    facts: dict[str, Any] = {}
    for level in reversed(found.__mro__):
        for name, value in vars(level).items():
            if name.startswith("_") or callable(value) or isinstance(value, property | classmethod | staticmethod):
                continue
            if name not in _CONNECTOR_FACTS | _STREAM_FACTS:
                hint = did_you_mean(name, sorted(_CONNECTOR_FACTS | _STREAM_FACTS))
                raise ConfigError(f"{place}.{name}", "no key of kind rest", f"{hint} A constant begins with _.")
            if _has_reference(value):
                hint = "Set it in the source file, where doctor looks for it and its value is masked."
                raise ConfigError(f"{place}.{name}", "holds a reference", hint)
            facts[name] = value
    return facts


def _has_reference(value: object) -> bool:
    match value:
        case str():
            return is_reference(value)
        case Mapping():
            return any(_has_reference(item) for item in cast("Mapping[object, object]", value).values())
        case list() | tuple():
            return any(_has_reference(item) for item in cast("list[object]", value))
        case Spec():
            return _has_reference(value.model_dump())
        case _:
            return False


def _wrong(error: ValidationError, place: str) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing" and key == "base_url":
        hint = "Set connector.base_url in the source file, or base_url in the class."
        return ConfigError(place, "has no base_url", hint)
    what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{place}.{key}", what, "See docs/rest.md for the keys and their values.")
