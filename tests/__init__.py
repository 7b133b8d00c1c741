"""A package, so that tests/e2e is one of it."""
