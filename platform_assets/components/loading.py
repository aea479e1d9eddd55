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
        ConfigError: a source file is wrong. It comes without the error behind it, which echoes the file's values:
            one of them may be a secret that should not be there, and Dagster shows the whole chain.
    """
    try:
        sources = list(_sources(root))
        if is_plain(root / FOLDER):
            return dg.Definitions.merge(*(source_definitions(spec, place) for spec, place in sources))
        return _by_dagster(root)
    except Exception as error:
        found = _config_error_behind(error)
        if found is None:
            raise
        raise found.with_traceback(None) from None


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
    import platform_assets.defs.ingest as folder

    tree = dg.ComponentTree.from_module(defs_module=folder, project_root=root)
    return tree.build_defs(tree.defs_module_path)


def _config_error_behind(error: BaseException | None) -> ConfigError | None:
    """Dagster wraps what its component tree meets in errors of its own, with a drawing of the tree."""
    while error is not None and not isinstance(error, ConfigError):
        error = error.__cause__
    return error
