"""A Meltano project's files, read and merged; what they mean is `connectors.singer.meltano`'s business."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from dotenv import dotenv_values

from connectors.errors import ConfigError
from connectors.specs import did_you_mean

Json = Mapping[str, Any]


def environment(project: Json, wanted: str | None, path: Path) -> list[dict[str, Any]]:
    """The extractors of the chosen environment, by default of the project's own default one."""
    name = wanted or project.get("default_environment")
    environments = {str(item["name"]): item for item in project.get("environments") or ()}
    if name is None:
        return []
    if name not in environments:
        if wanted is None:
            return []
        raise ConfigError(str(path), f"no environment {name!r}", did_you_mean(name, list(environments)))
    return listed(environments[name], "config", "plugins", "extractors", where=f"{path}: environment {name}")


def merged_plugin(plugins: list[dict[str, Any]], overrides: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """A plugin over the one that it inherits from, under what the environment says of it."""
    own = next(plugin for plugin in plugins if plugin["name"] == name)
    parent = own.get("inherit_from")
    known = {str(plugin["name"]) for plugin in plugins}
    base = merged_plugin(plugins, [], str(parent)) if parent and parent != name and parent in known else {}
    merged = over(base, own)
    for override in overrides:
        if override["name"] == name:
            merged = over(merged, override)
    return merged


def lock_of(folder: Path, plugins: list[dict[str, Any]], name: str) -> Json:
    """What Meltano's hub says of the plugin: package, command, settings. Empty without a lock file."""
    own = next(plugin for plugin in plugins if plugin["name"] == name)
    base = str(own.get("inherit_from") or name)
    variant = next((plugin.get("variant") for plugin in (own, *plugins) if plugin["name"] in (name, base)), None)
    path = folder / "plugins" / "extractors" / f"{base}--{own.get('variant') or variant}.lock"
    if not path.exists():
        return {}
    try:
        found: Any = json.loads(read_text(path))
    except ValueError as error:
        raise ConfigError(str(path), f"is no JSON: {error}", "Run `meltano lock --update`, or delete it.") from error
    return {key: found[key] for key in ("pip_url", "executable", "settings", "capabilities") if key in found}


def set_outside(folder: Path, name: str, settings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Settings of the plugin that the project keeps in its `.env`, where Meltano looks for them: name to variable."""
    kept = dotenv_values(folder / ".env")
    prefix = re.sub(r"\W", "_", name).upper() + "_"
    known = {str(item.get("env") or prefix + re.sub(r"\W", "_", str(item["name"])).upper()): item for item in settings}
    found = {str(item["name"]): variable for variable, item in known.items() if variable in kept}
    rest = {variable.removeprefix(prefix).lower(): variable for variable in kept if variable.startswith(prefix)}
    # with two underscores it is an extra of Meltano's, or a setting of a plugin that inherits from this one
    return found | {name: at for name, at in rest.items() if at not in known and not name.startswith("_")}


def over(base: Json, top: Json) -> dict[str, Any]:
    """Mappings are merged by key, anything else is replaced; `_select` and its like are Meltano's names of extras."""
    merged = dict(base)
    for key, value in top.items():
        name = key.removeprefix("_")
        before = merged.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[name] = over(cast("Json", before), cast("Json", value)) if both else value
    return merged


def singer_state(path: Path) -> Json:
    """What `meltano state get` prints, of any version, or a bare Singer state."""
    try:
        raw: Any = json.loads(read_text(path))
    except ValueError as error:
        raise ConfigError(str(path), f"is no JSON: {error}", "Write it with `meltano state get STATE_ID`.") from error
    for key in ("completed", "singer_state"):
        if isinstance(raw, Mapping) and isinstance(cast("Json", raw).get(key), Mapping):
            raw = cast("Json", raw)[key]
    if not isinstance(raw, Mapping):
        raise ConfigError(str(path), "is no Singer state", "Write it with `meltano state get STATE_ID`.")
    return cast("Json", raw)


def read_yaml(path: Path) -> Json:
    import yaml  # reading YAML is for those who read files

    try:
        found: Any = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(str(path), f"is no YAML: {str(error).splitlines()[0]}", "Mend the file.") from error
    if not isinstance(found, Mapping):
        raise ConfigError(str(path), "is no mapping", "Is this the meltano.yml of the project?")
    return cast("Json", found)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}", "Give the path of a text file.") from error


def listed(value: Any, *keys: str, where: str) -> list[dict[str, Any]]:
    for key in keys:
        value = cast("Json", value).get(key) if isinstance(value, Mapping) else None
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) and "name" in item for item in value):
        raise ConfigError(f"{where}: {'.'.join(keys)}", "is no list of named plugins", "See Meltano's own docs.")
    return [dict(cast("Json", item)) for item in cast("list[Any]", value)]
