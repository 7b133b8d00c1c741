"""A package, so that what is started for its tests ends with the last of them, and not with the session."""
