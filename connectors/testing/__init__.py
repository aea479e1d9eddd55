"""For tests of connectors: a conformance suite, a stand-in API, recorded traffic. No test framework is needed."""
