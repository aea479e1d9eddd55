"""The ingest folder as definitions, in CPU time that 500 streams can afford."""

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from connectors.errors import ConfigError
from connectors.specs import SourceSpec
from platform_assets.components.source import source_definitions
from platform_assets.sources import COMPONENT, FOLDER, read_source_file, source_paths

_PLAIN_LINE = re.compile(rf"^(type:\s*{re.escape(COMPONENT)}\s*(#.*)?|attributes:.*|---\s*|#.*|\s.*|)$")


def ingest_definitions(root: Path) -> dg.Definitions:
    """Every source below `root`'s ingest folder.

    A folder of nothing but plain `Source` files is read with libyaml: Dagster's own reader keeps every value's
    position and takes ten times as long (0.36 against 0.04 CPU s for 500 streams). Anything else there, such as a
    component of another type, `post_processing` or a Python module, makes Dagster load the whole folder itself.

    Raises:
        ConfigError: a source file is wrong.
    """
    sources = list(_sources(root))
    if is_plain(root / FOLDER):
        return dg.Definitions.merge(*(source_definitions(spec, place) for spec, place in sources))
    return _by_dagster(root)


def _sources(root: Path) -> Iterator[tuple[SourceSpec, str]]:
    places: dict[str, str] = {}
    for path in source_paths(root):
        place = str(path.relative_to(root))
        for spec in read_source_file(path, root):
            if spec.source in places:
                raise ConfigError(
                    f"{place}: source",
                    f"{spec.source!r} is declared in {places[spec.source]} already",
                    "Give one of them another name: schema, assets and state are found by it.",
                )
            places[spec.source] = place
            yield spec, place


def is_plain(folder: Path) -> bool:
    """Whether nothing but plain source files is there; every doubt is a no, which is only slower."""
    for path in folder.rglob("*"):
        if "__pycache__" in path.parts or path.is_dir() or path.name == "__init__.py":
            continue
        if path.suffix in (".py", ".yml") or path.name == "component.yaml":
            return False
        if path.name == "defs.yaml" and not all(map(_PLAIN_LINE.match, path.read_text(encoding="utf-8").splitlines())):
            return False
    return True


def _by_dagster(root: Path) -> dg.Definitions:
    """Dagster's component tree of the folder. A ConfigError inside loses the tree's own frames and drawing."""
    import platform_assets.defs.ingest as folder

    try:
        tree = dg.ComponentTree.from_module(defs_module=folder, project_root=root)
        return tree.build_defs(tree.defs_module_path)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ConfigError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None
