"""A source file drafted from an OpenAPI 3 description: what it says is taken over, what is guessed says so.

Descriptions are written by hand and by many programs: whatever is not where it should be is passed over, references may
go round, and nothing costs more than a bounded number of steps.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urljoin, urlsplit

import yaml
from pydantic import ValidationError

from connectors.errors import ConfigError
from connectors.http import openapi_guesses as guesses
from connectors.http.source import HttpStreamSpec

_STEPS: Final = 300_000
_DEPTH: Final = 12
_SUCCESS: Final = ("200", "2XX", "2xx", "201", "default")
_FORMATS: Final = (("json", ""), ("ndjson", "jsonl"), ("jsonl", "jsonl"), ("csv", "csv"))
_PARAMETER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Draft:
    """text: of the source file. streams: how many are in it. left_out: paths that are none, and why."""

    text: str
    streams: int
    left_out: tuple[str, ...]


class Document:
    """A description, read where it is what it should be. Every step counts against a limit, so loops end."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._left = _STEPS

    def mapping(self, node: object) -> Mapping[str, Any]:
        """The node, its reference followed; empty when it is no mapping or leads nowhere or in a circle."""
        for _ in range(_DEPTH):
            self._left -= 1
            if self._left < 0 or not isinstance(node, Mapping):
                return {}
            found = cast("Mapping[Any, Any]", node)
            reference = found.get("$ref")
            if not isinstance(reference, str):
                return {str(key): value for key, value in found.items()}
            if not reference.startswith("#/"):
                return {}
            node = self._root
            for part in reference.removeprefix("#/").split("/"):
                name = part.replace("~1", "/").replace("~0", "~")
                node = cast("Mapping[Any, Any]", node).get(name) if isinstance(node, Mapping) else None
        return {}

    def items(self, node: object) -> list[Mapping[str, Any]]:
        return [self.mapping(item) for item in cast("list[object]", node)] if isinstance(node, list) else []

    def properties(self, schema: object, depth: int = 0) -> dict[str, Any]:
        """Members of an object's schema, those of its parts (allOf, and the first of a choice) included."""
        if depth > _DEPTH:
            return {}
        found = self.mapping(schema)
        members = dict(self.mapping(found.get("properties")))
        parts = cast("list[object]", found["allOf"]) if isinstance(found.get("allOf"), list) else []
        for choice in ("oneOf", "anyOf"):
            if isinstance(found.get(choice), list):
                parts = [*parts, *cast("list[object]", found[choice])[:1]]
        for part in parts:
            if self._left > 0:
                members = {**self.properties(part, depth + 1), **members}
        return members

    def array_items(self, schema: object) -> object:
        """The items of an array's schema; None when it is none."""
        found = self.mapping(schema)
        is_array = found.get("type") == "array" or "items" in found
        return found.get("items") or {} if is_array else None


@dataclass(slots=True)
class Listing:
    """A GET operation that answers with records. parameters: of its query, by name."""

    path: str
    name: str
    operation: Mapping[str, Any]
    parameters: Mapping[str, Mapping[str, Any]]
    answer: dict[str, Any]
    headers: frozenset[str]
    records: str
    item: dict[str, Any]
    format: str = ""
    parent: "Listing | None" = None
    lines: list[str] = field(default_factory=list[str])


def draft(root: object, name: str, origin: str) -> Draft:
    """The source file of `name`. origin: path or address of the description, for relative servers.

    Raises:
        ConfigError: it is no OpenAPI 3 description, or nothing in it answers with records.
    """
    document = Document(root)
    top = document.mapping(root)
    version = str(top.get("openapi", ""))
    if not version.startswith("3"):
        said = f"says swagger: {top['swagger']}" if "swagger" in top else "has no `openapi: 3...`"
        raise ConfigError(origin, said, "Convert it to OpenAPI 3 first.")
    left_out: list[str] = []
    listings = _with_parents(document, list(_listings(document, top, left_out)), left_out)
    if not listings:
        raise ConfigError(origin, "no GET operation answers with a list of records", "Write the source by hand.")
    info = document.mapping(top.get("info"))
    streams = [_stanza(document, listing) for listing in listings]
    head = [
        f"# Drafted from {_line(origin)}. Lines marked `guess` are guesses: compare them with the source,",
        f"# then run `headwater check {name}` and `headwater preview {name}.<stream>`.",
        "type: platform_assets.components.Source",
        "attributes:",
        f"  source: {name}",
        "  owner: team:data  # guess",
        f"  description: {value(_line(info.get('title')) or name)}",
        "  connector:",
        "    kind: rest",
        *(f"    {line}" for line in _connector(document, top, name, origin)),
        "  streams:",
    ]
    skipped = [f"  # left out: {_line(reason)}" for reason in left_out]
    return Draft("\n".join([*head, *(line for lines in streams for line in lines), *skipped, ""]), len(listings), (
        *left_out,
    ))  # fmt: skip


def _connector(document: Document, top: Mapping[str, Any], name: str, origin: str) -> Iterator[str]:
    servers = document.items(top.get("servers"))
    url = str(servers[0].get("url", "")) if servers else ""
    variables = document.mapping(servers[0].get("variables")) if servers else {}
    for key, said in variables.items():
        url = url.replace(f"{{{key}}}", str(document.mapping(said).get("default", "")))
    address = _address(url, origin)
    if address is not None:
        yield f"base_url: {value(address.rstrip('/'))}"
    else:
        yield f"base_url: env:{name.upper()}_URL  # guess: the description names no usable address"
    schemes = document.mapping(document.mapping(top.get("components")).get("securitySchemes"))
    wanted = [key for requirement in document.items(top.get("security")) for key in requirement]
    for key in [*wanted, *schemes]:
        auth = guesses.auth(document.mapping(schemes.get(key)), document.mapping, name.upper())
        if auth is not None:
            yield f"auth: {value(auth)}  # guess: its scheme {_line(key)}"
            return
    if schemes:
        yield f"# no auth: none of its schemes is known here ({_line(', '.join(schemes))})"


def _address(url: str, origin: str) -> str | None:
    """The server's address; None when no source can have it."""
    try:
        if origin.startswith(("http://", "https://")):
            url = urljoin(origin, url or "/")
        parts = urlsplit(url)
    except ValueError:
        return None
    is_usable = parts.scheme in ("http", "https") and parts.netloc and "@" not in parts.netloc
    is_plain = re.fullmatch(r"[!-~]+", url) and not {"{", "?", "#"} & set(url)
    return url if is_usable and is_plain else None


def _listings(document: Document, top: Mapping[str, Any], left_out: list[str]) -> Iterator[Listing]:
    taken: set[str] = set()
    for path, node in document.mapping(top.get("paths")).items():
        item = document.mapping(node)
        operation = document.mapping(item.get("get"))
        if not operation:
            continue
        if not re.fullmatch(r"/[!-~]*", path) or path.startswith("//") or "://" in path:
            left_out.append(f"{path}: it is no path")
            continue
        responses = document.mapping(operation.get("responses"))
        response = next((document.mapping(responses[code]) for code in _SUCCESS if code in responses), {})
        schema, form = _schema(document, response)
        answer = document.properties(schema)
        found = guesses.records(document, schema, answer, path) if form in ("", "jsonl") else (".", {})
        if form == "jsonl" and found is None:
            found = (".", schema)
        if found is None:
            left_out.append(f"{path}: its answer is no list of records")
            continue
        parameters = {
            str(said["name"]): said
            for said in [*document.items(item.get("parameters")), *document.items(operation.get("parameters"))]
            if said.get("in") == "query" and isinstance(said.get("name"), str)
        }
        name = guesses.stream_name(path, taken)
        taken.add(name)
        headers = frozenset(key.lower() for key in document.mapping(response.get("headers")))
        members = document.properties(found[1])
        yield Listing(path, name, operation, parameters, answer, headers, found[0], members, form)


def _schema(document: Document, response: Mapping[str, Any]) -> tuple[object, str]:
    """The schema of a response and its format, empty for JSON."""
    content = document.mapping(response.get("content"))
    for word, form in _FORMATS:
        for kind, media in content.items():
            if word in kind.lower() and (form or not any(other in kind.lower() for other, own in _FORMATS if own)):
                return document.mapping(media).get("schema"), form
    return None, ""


def _with_parents(document: Document, listings: list[Listing], left_out: list[str]) -> list[Listing]:
    """Those that can be read: paths without parameters, and those with one whose list is among them."""
    tops = {listing.path.rstrip("/"): listing for listing in listings if not _PARAMETER.search(listing.path)}
    kept: list[Listing] = []
    for listing in listings:
        parameters = _PARAMETER.findall(listing.path)
        if not parameters:
            kept.append(listing)
            continue
        before = listing.path.partition("{")[0].rstrip("/")
        parent = tops.get(before)
        name = guesses.parent_field(parameters[0], before, parent.item) if parent is not None else None
        if len(parameters) > 1 or parent is None or name is None:
            left_out.append(f"{listing.path}: nobody lists what {', '.join(parameters)} can be")
            continue
        listing.parent = parent
        listing.path = listing.path.replace(f"{{{parameters[0]}}}", f"{{parent.{name}}}")
        kept.append(listing)
    return kept


def _stanza(document: Document, listing: Listing) -> list[str]:
    """The lines of one stream; guesses that contradict each other are taken back."""
    facts: dict[str, Any] = {"name": listing.name}
    if summary := _line(listing.operation.get("summary") or listing.operation.get("description")):
        facts["description"] = summary
    facts["path"] = listing.path
    if listing.format:
        facts["format"] = listing.format
    elif listing.records:
        facts["records"] = listing.records
    guessed = guesses.stream(listing, document.mapping)
    try:
        HttpStreamSpec.model_validate({**facts, **guessed})
    except ValidationError:
        needed = {key: guessed[key] for key in ("parent", "params") if key in guessed}
        guessed = {**needed, "write": "replace"}
    notes = guesses.notes(listing, guessed)
    body = [
        *(f"{key}: {value(said)}" for key, said in facts.items()),
        *(f"{key}: {value(said)}  # guess" for key, said in guessed.items()),
        *(f"# {_line(note)}" for note in notes),
    ]
    return [f"    {'- ' if index == 0 else '  '}{line}" for index, line in enumerate(body)]


def value(said: object) -> str:
    """A YAML value on one line."""
    text = yaml.safe_dump(said, default_flow_style=True, allow_unicode=True, width=1 << 20, sort_keys=False)
    return text.removesuffix("\n").removesuffix("...").strip()


def _line(said: object) -> str:
    """The first line of a text, such that it can stand in a comment and in a value."""
    lines = [part.strip() for part in str(said or "").splitlines() if part.strip()] or [""]
    return "".join(character for character in lines[0] if character.isprintable())[:200]
