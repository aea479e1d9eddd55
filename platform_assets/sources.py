"""The source files, read without Dagster: `platform_assets/defs/ingest/<source>/defs.yaml`.

The `Source` component validates the same attributes with the same `parse_source`, so what passes here loads there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import BaseModel

from connectors.errors import ConfigError
from connectors.secrets import REFERENCE, SecretRef
from connectors.specs import SourceSpec, StreamSpec, did_you_mean, parse_source
from platform_assets.settings import PROJECT_ROOT

COMPONENT = "platform_assets.components.Source"
FOLDER = Path("platform_assets", "defs", "ingest")
_SECRET_MARK = get_args(SecretRef)[1]


@dataclass(frozen=True, slots=True)
class Reference:
    """An `env:NAME` in a source file. place: the key it stands at, e.g. `connector.auth.token`."""

    name: str
    place: str
    is_secret: bool


def source_paths(root: Path = PROJECT_ROOT) -> tuple[Path, ...]:
    """Every defs.yaml below the ingest folder, in the order of their names."""
    return tuple(sorted((root / FOLDER).glob("**/defs.yaml")))


def read_source_file(path: Path, root: Path = PROJECT_ROOT) -> tuple[SourceSpec, ...]:
    """The sources that the file declares: one as a rule, none when it holds only components of other types.

    Raises:
        ConfigError: the file is no YAML, or a source in it is wrong, or one of its checks, or it names a stream that it
            does not have; names file, stream, key and nearest valid key.
    """
    place = str(path.relative_to(root) if path.is_relative_to(root) else path)
    found = tuple(
        parse_source(document.get("attributes") or {}, place, path.parent)
        for document in _documents(path, place)
        if _is_source(document, place)
    )
    for spec in found:
        _refuse_unknown_streams(spec, place)
        if any(stream.checks for stream in spec.streams):
            from platform_assets.checks import refuse_wrong_checks  # a file without checks needs none of them

            refuse_wrong_checks(spec, place)
    return found


def _refuse_unknown_streams(spec: SourceSpec, place: str) -> None:
    names = [stream.name for stream in spec.streams]
    for stream in spec.streams:
        named = stream.backfill.corrections
        if named is not None and named.stream not in names:
            where = f"{place}: streams[{stream.name}].backfill.corrections.stream"
            raise ConfigError(where, f"no stream {named.stream!r} in this source", did_you_mean(named.stream, names))


def load_sources(root: Path = PROJECT_ROOT) -> tuple[SourceSpec, ...]:
    """All sources. Raises ConfigError at the first wrong file, and when two files declare one source."""
    found: dict[str, tuple[SourceSpec, Path]] = {}
    for path in source_paths(root):
        for spec in read_source_file(path, root):
            if spec.source in found:
                raise ConfigError(
                    str(path.relative_to(root)),
                    f"source {spec.source!r} is declared in {found[spec.source][1].relative_to(root)} already",
                    "Give one of them another name: schema, assets and state are found by it.",
                )
            found[spec.source] = (spec, path)
    return tuple(spec for spec, _ in found.values())


def find_source(name: str, root: Path = PROJECT_ROOT) -> SourceSpec:
    """The source of that name; files of other sources may be wrong.

    Raises:
        ConfigError: its file is wrong, or there is no such source (with the nearest name).
    """
    known: list[str] = []
    broken: ConfigError | None = None
    for path in source_paths(root):
        try:
            specs = read_source_file(path, root)
        except ConfigError as error:
            # the folder usually has the source's name; a file that cannot be read may be the one that is asked for
            if path.parent.name == name:
                raise
            broken = broken or error
            continue
        for spec in specs:
            if spec.source == name:
                return spec
            known.append(spec.source)
    if broken is not None:
        raise broken
    hint = did_you_mean(name, known) if known else f"Add {FOLDER}/{name}/defs.yaml; see docs/sources.md."
    raise ConfigError(name, "no such source", hint)


def split_target(target: str) -> tuple[str, str | None]:
    """`source` or `source.stream`."""
    source, _, stream = target.partition(".")
    return source, stream or None


def find_streams(target: str, root: Path = PROJECT_ROOT) -> tuple[SourceSpec, tuple[StreamSpec, ...]]:
    """The source and the streams that `source` or `source.stream` means."""
    name, stream = split_target(target)
    spec = find_source(name, root)
    return spec, (spec.stream(stream),) if stream else spec.streams


def references(spec: BaseModel, place: str = "") -> Iterator[Reference]:
    """Every reference in the spec, in the order of its fields."""
    for name, field in type(spec).model_fields.items():
        where = f"{place}.{name}" if place else name
        is_secret = _SECRET_MARK in field.metadata or _mentions_secret(field.annotation)
        yield from _references_in(getattr(spec, name), where, is_secret=is_secret)
    for name, value in (spec.model_extra or {}).items():
        yield from _references_in(value, f"{place}.{name}" if place else name, is_secret=False)


def _references_in(value: object, place: str, *, is_secret: bool) -> Iterator[Reference]:
    match value:
        case str():
            if found := REFERENCE.match(value):
                yield Reference(found[1], place, is_secret)
        case BaseModel():
            yield from references(value, place)
        case Mapping():
            for key, item in cast("Mapping[object, object]", value).items():
                yield from _references_in(item, f"{place}.{key}", is_secret=is_secret)
        case list() | tuple():
            for index, item in enumerate(cast("list[object]", value)):
                label = getattr(item, "name", index)
                yield from _references_in(item, f"{place}[{label}]", is_secret=is_secret)
        case _:
            return


def _mentions_secret(annotation: object) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return _SECRET_MARK in metadata or any(_mentions_secret(inner) for inner in get_args(annotation))


def _documents(path: Path, place: str) -> list[Mapping[str, Any]]:
    import yaml  # reading YAML is for those who read files

    try:
        loaded = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_loader()))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(
            f"{place}{line}", f"is not YAML: {error.problem or error}", "Mend the line; indent with spaces."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(place, f"cannot be read: {error}", "Make it a UTF-8 text file that you may read.") from error
    for document in loaded:
        if document is not None and not isinstance(document, Mapping):
            raise ConfigError(place, f"holds a {type(document).__name__}, not `type:` and `attributes:`", _SHAPE)
    return [document for document in loaded if document]


_SHAPE = f"Start it with `type: {COMPONENT}`; see docs/sources.md."


@cache
def _loader() -> Any:
    """YAML's safe loader, which takes the last of two equal keys in silence, made to refuse them."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            if len({key.value for key, _ in node.value if type(key.value) is str}) < len(node.value):
                self._refuse_twice(node)
            return super().construct_mapping(node, deep=deep)

        def _refuse_twice(self, node: yaml.MappingNode) -> None:
            seen: set[str] = set()
            for key, _ in node.value:
                # what `<<` merged in stands elsewhere, and may be said again
                is_own = node.start_mark.index <= key.start_mark.index < node.end_mark.index
                if is_own and isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        what = f"the key {key.value!r} stands twice in one mapping"
                        raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                    seen.add(key.value)

    return Loader


def _is_source(document: Mapping[str, Any], place: str) -> bool:
    declared = document.get("type")
    if not isinstance(declared, str):
        raise ConfigError(f"{place}: type", "missing" if declared is None else "is not a text", _SHAPE)
    if declared == COMPONENT:
        return True
    if declared.startswith("platform_assets.") or declared.rpartition(".")[2].lower() == "source":
        raise ConfigError(f"{place}: type", f"unknown component {declared!r}", did_you_mean(declared, [COMPONENT]))
    return False
