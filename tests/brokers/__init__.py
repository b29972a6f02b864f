"""The conformance suite of brokers: a driver is done when it passes."""
