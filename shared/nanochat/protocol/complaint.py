"""What pydantic found wrong with a value, as an error of the project's: one sentence about the first complaint."""

from pydantic import ValidationError

from nanochat.errors import InvalidConfig


def invalid_config(error: ValidationError, prefix: str = "") -> InvalidConfig:
    """Which field, what was found, what is expected."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in ((prefix, *first["loc"]) if prefix else first["loc"]))
    if first["type"] == "extra_forbidden":
        return InvalidConfig(f"{path} is not a known key; remove it or correct its name.", param=path)
    if first["type"] == "missing":
        return InvalidConfig(f"{path} is required; add it.", param=path)
    found = repr(first["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    return InvalidConfig(f"{path} is {found}: {first['msg']}.", param=path)
