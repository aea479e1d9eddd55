"""`headwater new`: the files of a new part.

`new connector NAME`: module, source file and test of a bespoke connector, all three working.
`new source --from-openapi FILE`: a source file, drafted from the description of an API.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from connectors.errors import ConfigError
from connectors.specs import NAME
from platform_assets.cli.context import read_settings

command = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_LARGEST_DESCRIPTION: Final = 50_000_000

_MODULE = '''\
"""{name}: say here what it is and where its API is described."""

from connectors.custom import CursorPaging, HttpConnector, IncrementalSpec


class {title}(HttpConnector):
    """A fact that a declaration can hold is an attribute; for the rest define rows, following or parameters."""

    path = "/{{stream}}"
    records = "data"
    pagination = CursorPaging(param="after", path="next")
    incremental = IncrementalSpec(param="since", end_param="until", ordered=True)
'''

_SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: {name}                 # schema raw_{name}, asset keys [{name}, <stream>]
  owner: team:data
  connector:
    kind: python
    module: {name}
    base_url: env:{upper}_URL
    auth: {{type: bearer, token: env:{upper}_TOKEN}}
  streams:
    - name: items
      primary_key: id
      cursor: {{field: updated_at}}
      write: merge
"""

_TEST = '''\
"""{name}: the connector keeps its contract."""

from pathlib import Path

import pytest
import yaml

from connectors.specs import parse_source
from connectors.testing.conformance import assert_conforms
from connectors.testing.stand_in import stand_in

FILE = Path(__file__).parents[2] / "platform_assets" / "defs" / "ingest" / "{name}" / "defs.yaml"
ITEMS = [{{"id": number, "updated_at": f"2024-01-0{{number}}T00:00:00Z"}} for number in range(1, 8)]


def test_{name}_conforms(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in({{"items": ITEMS}}) as api:
        monkeypatch.setenv("{upper}_URL", api.url)
        monkeypatch.setenv("{upper}_TOKEN", "a-token")
        attributes = yaml.safe_load(FILE.read_text(encoding="utf-8"))["attributes"]
        assert_conforms(parse_source(attributes, FILE), requests=api.requests)
'''


@command.callback()
def new() -> None:
    """Write the files that a new part needs; nothing that exists is touched."""


@command.command("connector")
def connector(
    name: str = typer.Argument(help="Lower-case letters, digits and _: the source, its module, its test."),
) -> None:
    """Write module, source file and test of a bespoke connector. Its test passes as it is; then fill them in."""
    if not re.fullmatch(NAME, name):
        hint = "Use lower-case letters, digits and _, a letter first."
        raise ConfigError("new connector", f"{name!r} can be no source's name", hint)
    root = read_settings().project_root
    title = "".join(part.capitalize() for part in name.split("_"))
    words = {"name": name, "title": title, "upper": name.upper()}
    texts = {
        root / "connectors" / "custom" / f"{name}.py": _MODULE,
        root / "platform_assets" / "defs" / "ingest" / name / "defs.yaml": _SOURCE,
        root / "tests" / "custom" / f"test_{name}.py": _TEST,
    }
    if existing := [path for path in texts if path.exists()]:
        what = f"{_short(existing[0], root)} exists already"
        raise ConfigError("new connector", what, "Choose another name, or take the file away; nothing was written.")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**words), encoding="utf-8")
        print(f"wrote {_short(path, root)}")
    print(f"next: pytest tests/custom/test_{name}.py, then set {name.upper()}_URL and run headwater check {name}")


@command.command("source")
def source(
    name: Annotated[
        str | None, typer.Argument(help="The source's name; the description's title when not given.")
    ] = None,
    from_openapi: Annotated[
        str, typer.Option("--from-openapi", help="An OpenAPI 3 description: a file or an http address, JSON or YAML.")
    ] = "",
) -> None:
    """Draft a source file from an OpenAPI 3 description; what is guessed in it is marked, for you to compare."""
    import yaml

    from connectors.http.openapi import draft
    from connectors.specs import parse_source

    if not from_openapi:
        raise ConfigError("new source", "needs --from-openapi", "Name a file or an address; see docs/rest.md.")
    document = _description(from_openapi)
    if name is None:
        info = document.get("info")
        title = str(cast("dict[str, object]", info).get("title", "")) if isinstance(info, dict) else ""
        name = "_".join(re.findall(r"[a-z0-9]+", title.lower()))[:40].strip("_")
        name = name if name[:1].isalpha() else f"s_{name}".rstrip("_")
    if not re.fullmatch(NAME, name):
        hint = "Use lower-case letters, digits and _, a letter first."
        raise ConfigError("new source", f"{name!r} can be no source's name", hint)
    root = read_settings().project_root
    path = root / "platform_assets" / "defs" / "ingest" / name / "defs.yaml"
    if path.exists():
        what = f"{_short(path, root)} exists already"
        raise ConfigError("new source", what, "Choose another name, or take the file away; nothing was written.")
    made = draft(document, name, from_openapi)
    parse_source(yaml.safe_load(made.text)["attributes"], path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.text, encoding="utf-8")
    print(f"wrote {_short(path, root)}: {made.streams} streams, {len(made.left_out)} paths left out")
    print(f"next: look at the lines marked guess, set the variables, and run headwater check {name}")


def _description(origin: str) -> "dict[str, object]":
    """The description, at most 50 MB of it.

    Raises:
        ConfigError: it cannot be read, or is neither JSON nor YAML.
    """
    import yaml

    try:
        body = _downloaded(origin) if origin.startswith(("http://", "https://")) else _read(Path(origin))
    except OSError as error:
        raise ConfigError(origin, f"cannot be read: {error.strerror or error}", "Name a file or an address.") from error
    if len(body) > _LARGEST_DESCRIPTION:
        raise ConfigError(origin, f"has more than {_LARGEST_DESCRIPTION // 10**6} MB", "Cut it to what is needed.")
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        try:
            # five times as fast as the loader in Python, where it is compiled in
            found = yaml.load(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            said = " ".join(str(error).split())[:200]
            raise ConfigError(origin, f"is neither JSON nor YAML: {said}", "Check the file.") from error
    if not isinstance(found, dict):
        raise ConfigError(origin, "is no OpenAPI description", "Check the file.")
    return {str(key): value for key, value in cast("dict[object, object]", found).items()}


def _read(path: Path) -> bytes:
    """One byte more than is allowed, at most."""
    with path.open("rb") as file:
        return file.read(_LARGEST_DESCRIPTION + 1)


def _downloaded(address: str) -> bytes:
    import httpx

    parts: list[bytes] = []
    size = 0
    try:
        with httpx.stream("GET", address, timeout=30, follow_redirects=True) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                parts.append(chunk)
                size += len(chunk)
                if size > _LARGEST_DESCRIPTION:
                    break
    except httpx.HTTPError as error:
        raise ConfigError(address, f"cannot be read: {error}", "Check the address.") from error
    return b"".join(parts)


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
