"""`headwater new connector NAME`: module, source file and test of a bespoke connector, all three working."""

import re
from pathlib import Path

import typer

from connectors.errors import ConfigError
from connectors.specs import NAME
from platform_assets.cli.context import read_settings

command = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

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


def _short(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
