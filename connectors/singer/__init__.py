"""Singer taps: catalog, state and messages of the protocol, over connectors.process."""
