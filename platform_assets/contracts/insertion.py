"""Columns and a key put into a source file: nothing else of its text changes, no comment and no order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.errors import ConfigError
from platform_assets.contracts.dbt_files import flow
from platform_assets.contracts.infer import Contract, Inferred


@dataclass(frozen=True, slots=True)
class _Edit:
    """Text that comes in at an offset of the file."""

    at: int
    text: str


def with_contract(text: str, place: str, source: str, stream: str, contract: Contract) -> str:
    """The file with the contract's columns behind those that it has, and the key where it names none.

    Raises:
        ConfigError: the file has no such stream, or its columns stand where nothing can be added.
    """
    stanza = _stanza(text, source, stream)
    if stanza is None:
        raise ConfigError(f"{place}: {stream}", "is not in the file", "See `headwater sources`.")
    edits: list[_Edit] = []
    columns = _child(stanza, "columns")
    if contract.key:
        edits.append(_key(text, stanza, contract))
    if contract.columns and columns is None:
        edits.append(_new_columns(text, stanza, contract.columns))
    elif contract.columns:
        if columns.start_mark.index == columns.end_mark.index or not hasattr(columns.value, "append"):
            raise ConfigError(f"{place}: {stream}.columns", "is empty", "Remove the key, then run it again.")
        edits.append(_more_columns(text, columns, contract.columns))
    for edit in sorted(edits, key=lambda one: -one.at):
        text = text[: edit.at] + edit.text + text[edit.at :]
    return text


def _stanza(text: str, source: str, stream: str) -> Any:
    import yaml

    for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
        attributes = _child(document, "attributes")
        if attributes is None or getattr(_child(attributes, "source"), "value", None) != source:
            continue
        streams = _child(attributes, "streams")
        for item in streams.value if streams is not None else ():
            if getattr(_child(item, "name"), "value", None) == stream:
                return item
    return None


def _child(node: Any, name: str) -> Any:
    if node is None or node.id != "mapping":
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _key(text: str, stanza: Any, contract: Contract) -> _Edit:
    names = contract.key[0] if len(contract.key) == 1 else flow(list(contract.key))
    guess = "" if contract.is_key_known else f"  # guess: unique in {contract.rows:,} rows"
    if stanza.flow_style:
        return _Edit(_flow_end(text, stanza), f", primary_key: {names}")
    name = _child(stanza, "name")
    return _Edit(_line_end(text, name.end_mark.index), f"\n{_indent(stanza)}primary_key: {names}{guess}")


def _new_columns(text: str, stanza: Any, columns: Iterable[Inferred]) -> _Edit:
    if stanza.flow_style:
        lines = _lines(columns, " " * (stanza.start_mark.column + 4), is_flow=True)
        return _Edit(_flow_end(text, stanza), f",\n{' ' * (stanza.start_mark.column + 2)}columns: {{{lines}}}")
    indent = _indent(stanza)
    return _Edit(_block_end(text, stanza), f"\n{indent}columns:{_lines(columns, indent + '  ', is_flow=False)}")


def _more_columns(text: str, node: Any, columns: Iterable[Inferred]) -> _Edit:
    if node.flow_style:
        indent = " " * (_line_indent(text, node.start_mark.index) + 2)
        comma = "," if node.value else ""
        return _Edit(_flow_end(text, node), f"{comma}{_lines(columns, indent, is_flow=True)}")
    return _Edit(_block_end(text, node), _lines(columns, _indent(node), is_flow=False))


def _lines(columns: Iterable[Inferred], indent: str, *, is_flow: bool) -> str:
    """Each column on a line of its own, guesses as comments behind it; in a flow mapping with commas."""
    every: Sequence[Inferred] = tuple(columns)
    lines: list[str] = []
    for index, column in enumerate(every):
        comma = "," if is_flow and index < len(every) - 1 else ""
        guess = f"  # guess: {'; '.join(column.guesses)}" if column.guesses else ""
        lines.append(f"\n{indent}{flow({column.name: dict(column.facts)})[1:-1]}{comma}{guess}")
    # a comment runs to the end of its line, so the brace that follows needs one of its own
    return "".join(lines) + (f"\n{indent[:-2]}" if is_flow else "")


def _indent(node: Any) -> str:
    first, _ = next(iter(node.value))
    return " " * first.start_mark.column


def _line_indent(text: str, at: int) -> int:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return len(line) - len(line.lstrip(" -"))


def _flow_end(text: str, node: Any) -> int:
    """Before the closing brace, and before white space or a comma in front of it."""
    end = node.end_mark.index - 1
    while text[end - 1] in " \n,":
        end -= 1
    return end


def _block_end(text: str, node: Any) -> int:
    """The end of the mapping's last line with anything in it, a comment behind the value included."""
    last = node.value[-1][1]
    while last.id in ("mapping", "sequence") and not last.flow_style and last.value:
        last = last.value[-1][1] if last.id == "mapping" else last.value[-1]
    end = last.end_mark.index
    # a block scalar's mark stands behind its line breaks
    while end > 0 and text[end - 1] in "\n ":
        end -= 1
    return _line_end(text, end)


def _line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    return len(text) if found < 0 else found
