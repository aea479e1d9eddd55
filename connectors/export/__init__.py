"""Our connectors served to others: any source file as a Singer tap and as an Airbyte source. See docs/export.md."""
