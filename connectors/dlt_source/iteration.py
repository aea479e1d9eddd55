"""Iterates a dlt source on a state of ours, as dlt's own iterator does on one that it throws away."""

from collections.abc import Generator
from typing import Any

from dlt.common.configuration.container import Container
from dlt.common.configuration.resolve import inject_section
from dlt.common.pipeline import StateInjectableContext
from dlt.extract import DltSource
from dlt.extract.pipe_iterator import ManagedPipeIterator
from dlt.extract.source import SourceInjectableContext, SourceSchemaInjectableContext


def items_of(source: DltSource, state: dict[str, Any]) -> Generator[Any]:
    """Items as the resource yields them: a record, a list of records, an Arrow table, a data frame.

    state: of this source alone, as dlt keeps it under sources.<name>; changed in place, whole when the iteration ends.
    """
    # private, because the public iterator has no place for a state; the version of dlt is locked
    section = source._get_config_section_context()  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
    whole: Any = {"sources": {section.source_state_key: state}}
    contexts = [
        section,
        StateInjectableContext(state=whole),
        SourceSchemaInjectableContext(source.schema),
        SourceInjectableContext(source),
    ]
    container = Container()
    with (
        inject_section(section),
        container.injectable_context(contexts[1]),
        container.injectable_context(contexts[2]),
        container.injectable_context(contexts[3]),
    ):
        pipes: Any = ManagedPipeIterator.from_pipes(source.resources.selected_pipes)
    pipes.set_context(contexts)
    with pipes:
        for item in pipes:
            yield item.item
