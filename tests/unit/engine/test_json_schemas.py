"""A keyword that would be left out silently is named; what only looks like one is not."""

from typing import Any

import pytest

from nanochat.engine.json_schemas import check_schema
from nanochat.errors import InvalidRequest


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"not": {}}, "schema has 'not'"),
        ({"if": {"minimum": 3}, "then": {"maximum": 5}}, "schema has 'if'"),
        ({"items": {"dependentRequired": {"a": ["b"]}}}, "schema.items has 'dependentRequired'"),
        ({"$defs": {"x": {"anyOf": [{}, {"not": {}}]}}}, "schema.$defs.x.anyOf[1] has 'not'"),
        ({"type": "string", "format": "colour"}, "the format 'colour'"),
        ({"type": "string", "format": ["date"]}, "the format ['date']"),
        ({"anyOf": [{"type": "integer"}], "minimum": 5}, "'anyOf' beside 'minimum'"),
        ({"$ref": "#/$defs/a", "maxLength": 3, "$defs": {"a": {}}}, "'$ref' beside 'maxLength'"),
        ({"prefixItems": [{"format": "colour"}]}, "schema.prefixItems[0] has the format"),
    ],
)
def test_what_a_grammar_cannot_say_is_refused_where_it_stands(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema)
    assert said in caught.value.message
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"not": {"type": "string"}, "if": {}, "format": {"type": "string"}}},
        {"enum": [{"not": 1}, "if"], "title": "not"},
        {"const": {"anyOf": 1, "minimum": 2}},
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "Size", "default": None},
        {"$ref": "#/$defs/a", "description": "words", "$defs": {"a": {"type": "string", "format": "date"}}},
        {"type": "object", "additionalProperties": False},
    ],
)
def test_names_and_values_are_no_keywords(schema: dict[str, Any]) -> None:
    check_schema(schema)


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest, match="nested more than 64 deep"):
        check_schema(schema)
