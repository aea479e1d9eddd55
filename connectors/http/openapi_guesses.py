"""What names in an API's description usually mean: records, keys, paging, position, credentials."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from connectors.http.records import GUESSED_KEYS, SELF

if TYPE_CHECKING:
    from connectors.http.openapi import Document, Listing

Resolve = Callable[[object], Mapping[str, Any]]

_NEXT_TOKENS: Final = (
    "next_cursor", "next_page_token", "next_token", "continuation_token",
    "next_marker", "end_cursor", "cursor", "next",
)  # fmt: skip
_CURSOR_PARAMS: Final = (
    "cursor", "page_token", "next_token", "continuation_token", "continuationtoken",
    "after", "marker", "page_cursor", "start_cursor", "next",
)  # fmt: skip
_KEYSET_PARAMS: Final = ("starting_after", "since_id", "after_id", "last_id")
_PAGE_PARAMS: Final = ("page", "page_number", "page_no", "page[number]")
_OFFSET_PARAMS: Final = ("offset", "skip", "start", "startat", "start_index", "$skip", "page[offset]")
_SIZE_PARAMS: Final = (
    "limit", "per_page", "page_size", "size", "max_results", "count", "$top",
    "page[size]", "page[limit]",
)  # fmt: skip
_LINKS: Final = (
    "next",
    "next_url",
    "nexturl",
    "next_page_url",
    "nextpageurl",
    "next_page",
    "nextlink",
    "@odata.nextlink",
)
_MORE: Final = ("has_more", "has_next", "has_next_page", "more")
_TOTALS: Final = ("total", "total_count", "total_items", "total_results")
_CHANGED: Final = (
    "updated_at", "modified_at", "last_modified", "last_updated",
    "updated", "modified", "changed_at", "updated_time", "modified_time",
)  # fmt: skip
_SINCE: Final = (
    "updated_since", "updated_after", "modified_since", "modified_after", "since", "changed_since", "updated_at[gte]",
    "updated_gte", "updated_from", "from", "start_time",
)  # fmt: skip
_UNTIL: Final = (
    "updated_before", "updatedbefore", "updated_until", "modified_before", "until", "before", "updated_at[lt]",
    "updated_lt", "updated_to", "to", "end_time",
)  # fmt: skip
_LARGEST_SIZE: Final = 1_000
_WORD = re.compile(r"[a-z0-9]+")
_PARAMETER = re.compile(r"\{[^{}]*\}")


def records(document: "Document", schema: object, answer: Mapping[str, Any], path: str) -> tuple[str, object] | None:
    """Where the records are and what one is; None when the answer is no list."""
    own = document.array_items(schema)
    if own is not None:
        return SELF, own
    found: dict[str, object] = {}
    for key, member in answer.items():
        items = document.array_items(member)
        if items is not None:
            found[key] = items
            continue
        for below, inner in document.properties(member).items():
            items = document.array_items(inner)
            if items is not None and key in (*GUESSED_KEYS, "response", "result"):
                found[f"{key}.{below}"] = items
    objects = {key: items for key, items in found.items() if document.properties(items)} or found
    last = path.rstrip("/").rpartition("/")[2]
    for key in (last, *GUESSED_KEYS):
        if key in objects:
            return key, objects[key]
    return next(iter(objects.items())) if len(objects) == 1 else None


def stream_name(path: str, taken: Iterable[str]) -> str:
    """Words of the path without its parameters and versions; another one when it is taken."""
    cleaned = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", _PARAMETER.sub("", path)).lower()
    words = [word for word in _WORD.findall(cleaned) if not re.fullmatch(r"v\d+|api|rest|json", word)]
    name = "_".join(words)[:40].strip("_") or "records"
    name = name if name[0].isalpha() else f"s_{name}"
    number, unique = 2, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def parent_field(parameter: str, before: str, members: Mapping[str, Any]) -> str | None:
    """The field of the parent that a parameter of the path means."""
    known = {_plain(name): name for name in members}
    one = _singular(before.rpartition("/")[2])
    plain = _plain(parameter)
    for candidate in (plain, plain.removeprefix(_plain(one)), "id", "uuid", "key", "name"):
        if candidate and candidate in known and re.fullmatch(r"[\w.@-]+", known[candidate]):
            return known[candidate]
    return None


def stream(listing: "Listing", resolve: Resolve) -> dict[str, Any]:
    """The keys of a stream that nobody has said, in the order of a source file."""
    found: dict[str, Any] = {}
    if listing.parent is not None:
        field = listing.path.partition("{parent.")[2].partition("}")[0]
        column = f"{_singular(listing.parent.name)}_{field}"
        found["parent"] = {"stream": listing.parent.name, "include": {column: field}}
    paging = pagination(listing, resolve)
    if params := _required(listing, resolve, paging):
        found["params"] = params
    if paging is not None:
        found["pagination"] = paging
    total = _first(listing.answer, _TOTALS)
    if total is not None and not listing.format:
        found["total"] = total
    key = primary_key(listing)
    if key is not None:
        found["primary_key"] = key
    changed, since = _first(listing.item, _CHANGED), _first(listing.parameters, _SINCE)
    if changed is not None and since is not None and key is not None:
        until = _first(listing.parameters, _UNTIL)
        found["cursor"] = {"field": changed, "lag": "PT10M"}
        found["incremental"] = {"param": since, **({"end_param": until} if until is not None else {})}
        found["write"] = "merge"
    else:
        found["write"] = "replace"
    return found


def pagination(listing: "Listing", resolve: Resolve) -> dict[str, Any] | None:
    """None when nothing looks like paging."""
    parameters, answer = listing.parameters, {} if listing.format else _flat(listing.answer, resolve)
    sized = _size(parameters, resolve)
    more = _first(answer, _MORE)
    if more is not None:
        sized["has_more"] = more
    mark, token = _first(parameters, _CURSOR_PARAMS), _first(answer, _NEXT_TOKENS)
    if mark is not None and token is not None and not _is_address(answer[token]):
        return {"type": "cursor", "param": mark, "path": token, **sized}
    link = _first(answer, _LINKS)
    if link is not None and (_is_address(answer[link]) or _plain(link) != "next"):
        return {"type": "next_link", "path": link, **sized}
    if "link" in listing.headers:
        return {"type": "next_link", **sized}
    keyset, key = _first(parameters, _KEYSET_PARAMS), primary_key(listing)
    if keyset is not None and key is not None:
        return {"type": "keyset", "param": keyset, "field": key, **sized}
    for kind, names in (("page_number", _PAGE_PARAMS), ("offset", _OFFSET_PARAMS)):
        param = _first(parameters, names)
        if param is not None:
            return {"type": kind, "param": param, **sized}
    return None


def primary_key(listing: "Listing") -> str | None:
    one = _plain(_singular(listing.path.rstrip("/").rpartition("/")[2]))
    return _first(listing.item, ("id", f"{one}id", "uuid", "guid", "key", "_id", f"{one}number", "code"))


def notes(listing: "Listing", guessed: Mapping[str, Any]) -> list[str]:
    """What the author must still decide."""
    said: list[str] = []
    if "primary_key" not in guessed:
        said.append("no key was found: set primary_key, and write: merge with a cursor")
    if "pagination" not in guessed:
        said.append("no paging was found: the first answer counts as all")
    changed = _first(listing.item, _CHANGED)
    if "incremental" not in guessed and changed is not None:
        said.append(f"{changed} looks like a cursor, but no parameter asks for what is newer")
    for name, value in guessed.get("params", {}).items():
        if value == "TODO":
            said.append(f"params.{name} is required, and the description names no value")
    return said


def auth(scheme: Mapping[str, Any], resolve: Resolve, prefix: str) -> dict[str, Any] | None:
    """The auth of a security scheme; None when it is none that is known."""
    kind, word = str(scheme.get("type")), str(scheme.get("scheme")).lower()
    token = f"env:{prefix}_TOKEN"
    if kind == "http" and word == "bearer":
        return {"type": "bearer", "token": token}
    if kind == "http" and word == "basic":
        return {"type": "basic", "username": f"env:{prefix}_USER", "password": f"env:{prefix}_PASSWORD"}
    place, name = scheme.get("in"), scheme.get("name")
    if kind == "apiKey" and place in ("header", "query") and isinstance(name, str):
        return {"type": "api_key", "key": f"env:{prefix}_KEY", "name": name, "in": place}
    flows = resolve(scheme.get("flows")) if kind == "oauth2" else {}
    client = {"client_id": f"env:{prefix}_CLIENT_ID", "client_secret": f"env:{prefix}_CLIENT_SECRET"}
    for flow, name in (("clientCredentials", "client_credentials"), ("authorizationCode", "authorization_code")):
        said = resolve(flows.get(flow))
        urls = {"token_url": said.get("tokenUrl"), "authorize_url": said.get("authorizationUrl")}
        if flow == "clientCredentials":
            del urls["authorize_url"]
        if said and all(isinstance(url, str) and url for url in urls.values()):
            return {"type": f"oauth2_{name}", **urls, **client}
    return None


def _required(listing: "Listing", resolve: Resolve, paging: Mapping[str, Any] | None) -> dict[str, Any]:
    """Values of the parameters that the source insists on, but for those that paging and position send."""
    own = {value for key, value in (paging or {}).items() if key in ("param", "size_param")}
    sent = own | {_first(listing.parameters, _SINCE), _first(listing.parameters, _UNTIL)}
    found: dict[str, Any] = {}
    for name, said in listing.parameters.items():
        if said.get("required") is not True or name in sent:
            continue
        schema = resolve(said.get("schema"))
        choices = schema.get("enum")
        values = [said.get("example"), schema.get("example"), schema.get("default")]
        values += choices[:1] if isinstance(choices, list) else []
        usable = [value for value in values if isinstance(value, str | int | float | bool) and value != ""]
        found[name] = usable[0] if usable and not str(usable[0]).startswith("env:") else "TODO"
    return found


def _size(parameters: Mapping[str, Mapping[str, Any]], resolve: Resolve) -> dict[str, Any]:
    param = _first(parameters, _SIZE_PARAMS)
    if param is None:
        return {}
    schema = resolve(parameters[param].get("schema"))
    for key in ("maximum", "default"):
        most = schema.get(key)
        if isinstance(most, int) and not isinstance(most, bool) and most > 0:
            return {"size_param": param, "size": min(most, _LARGEST_SIZE)}
    return {}


def _flat(answer: Mapping[str, Any], resolve: Resolve) -> dict[str, Mapping[str, Any]]:
    """Members of the answer and of the objects in it, by their paths; the nearer first."""
    near = {name: resolve(member) for name, member in answer.items()}
    far = {
        f"{name}.{below}": resolve(inner)
        for name, member in near.items()
        for below, inner in resolve(member.get("properties")).items()
    }
    return {**near, **far}


def _first(members: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The member that has the most likely of these names, however it is written; of a path the last part counts."""
    known: dict[str, str] = {}
    for name in members:
        known.setdefault(_plain(name.rpartition(".")[2] if not name.startswith("@") else name), name)
    return next((known[_plain(name)] for name in names if _plain(name) in known), None)


def _is_address(schema: Mapping[str, Any]) -> bool:
    return schema.get("format") in ("uri", "url", "uri-reference") or "http" in str(schema.get("example", ""))


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _singular(name: str) -> str:
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    return name.removesuffix("s") if not name.endswith("ss") else name
