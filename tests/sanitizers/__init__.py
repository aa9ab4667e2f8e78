"""The core under the compiler's sanitizers: ``make test-sanitizers``."""
