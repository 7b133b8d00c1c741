"""Reads JSON with the models that Grafana publishes for its dashboards, and tells what does not fit them.

They are generated from Grafana's own schemas (PyPI: grafana-foundation-sdk), but check nothing: a name that they do not
know is passed over, and a value of a wrong type is taken. So both are looked for here.
"""

import enum
import json
import typing
import warnings
from collections.abc import Iterator
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from pydantic import ConfigDict, TypeAdapter, ValidationError

with warnings.catch_warnings():  # files in the newer form, v2, are not yet loaded by every Grafana of today
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.models.dashboard import Dashboard


def misfits(dashboard: dict[str, Any]) -> list[str]:
    """What the models do not know, or know to be of another type; as paths with the value."""
    register_default_plugins()
    model = Dashboard.from_json(json.loads(json.dumps(dashboard)))
    written = json.loads(json.dumps(model, cls=JSONEncoder))
    return [*_lost(dashboard, written, ""), *_mistyped(model, "")]


def _lost(given: Any, written: Any, path: str) -> Iterator[str]:
    """What is not there, or another, once it was read and written again. What is added are defaults."""
    if isinstance(given, dict) and isinstance(written, dict):
        for name, value in given.items():
            if name in written:
                yield from _lost(value, written[name], f"{path}.{name}")
            else:
                yield f"{path}.{name} is unknown: {value!r}"
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for index, (value, other) in enumerate(zip(given, written, strict=True)):
            yield from _lost(value, other, f"{path}[{index}]")
    elif given != written:
        yield f"{path} is {given!r} and was read as {written!r}"


def _mistyped(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _mistyped(item, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _mistyped(item, f"{path}[{index}]")
    elif type(value).__module__.startswith("grafana_foundation_sdk.models") and not isinstance(value, enum.Enum):
        hints = typing.get_type_hints(type(value))
        for name, item in vars(value).items():
            if not _conforms(item, hints[name]):
                yield f"{path}.{name} is {item!r}, which is no {hints[name]}"
            yield from _mistyped(item, f"{path}.{name}")


def _conforms(value: Any, hint: Any) -> bool:
    try:
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError:
        return False
    return True
