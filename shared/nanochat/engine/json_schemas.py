"""What of JSON Schema a grammar cannot say. The compiler would leave it out silently; a request is refused instead.

Torch-free. What the compiler itself complains about is grammar_process.py's.
"""

from collections.abc import Iterator
from typing import Any

from nanochat.errors import InvalidRequest

_UNSUPPORTED = frozenset(
    [
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
        "dependencies",
        "$dynamicRef",
        "$recursiveRef",
    ]
)
_FORMATS = frozenset(
    [
        "email",
        "date",
        "time",
        "date-time",
        "duration",
        "ipv4",
        "ipv6",
        "hostname",
        "uuid",
        "uri",
        "uri-reference",
        "uri-template",
        "json-pointer",
        "relative-json-pointer",
    ]
)
# Beside one of these every other condition would be forgotten, so there may only be words about the schema.
_ALONE = ("$ref", "anyOf", "oneOf", "allOf")
_ANNOTATIONS = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "discriminator",
        "$defs",
        "definitions",
        "$schema",
        "$id",
        "$anchor",
        "$comment",
    ]
)
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "contains", "propertyNames")
_MAX_DEPTH = 64


def check_schema(schema: Any) -> None:
    """Raises InvalidRequest naming the first keyword that would be ignored."""
    for path, part in _parts(schema, "schema", 0):
        for keyword in part:
            if keyword in _UNSUPPORTED:
                raise _refused(f"{path} has {keyword!r}, which a grammar cannot express; leave it out")
        found = part.get("format")
        if found is not None and not (isinstance(found, str) and found in _FORMATS):
            raise _refused(f"{path} has the format {found!r}; known are {', '.join(sorted(_FORMATS))}")
        for keyword in _ALONE:
            others = sorted(part.keys() - _ANNOTATIONS - {keyword})
            if keyword in part and others:
                raise _refused(f"{path} has {keyword!r} beside {others[0]!r}; give one of them there")


def _parts(schema: Any, path: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and all schemas in it, with where each stands."""
    if depth > _MAX_DEPTH:
        raise _refused(f"its schema is nested more than {_MAX_DEPTH} deep; flatten it")
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword in _MAPS:
        if isinstance(schema.get(keyword), dict):
            for name, part in schema[keyword].items():
                yield from _parts(part, f"{path}.{keyword}.{name}", depth + 1)
    for keyword in (*_LISTS, *_SCHEMAS):
        value = schema.get(keyword)
        for i, part in enumerate(value if isinstance(value, list) else [value]):
            yield from _parts(part, f"{path}.{keyword}" + (f"[{i}]" if isinstance(value, list) else ""), depth + 1)


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(f"response_format cannot be used: {reason}.", param="response_format")
