"""Sources that speak the Airbyte protocol, as a dialect of connectors.process. See docs/airbyte.md."""
