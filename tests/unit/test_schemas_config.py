"""The schemas of the config repo: whole, described, and in step with what is read by them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler.config_repo.documents import Document, parse_document
from reconciler.config_repo.layout import GROUP_NAME, MODEL_NAME, Kind
from reconciler.resources import data_folder

KINDS = list(Kind)


def load(kind: Kind) -> dict[str, Any]:
    text = (data_folder("schema") / f"{kind}.schema.json").read_text()
    schema: dict[str, Any] = json.loads(text)
    return schema


def fields(schema: dict[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every named field of a schema with its path."""
    for field, inner in schema.get("properties", {}).items():
        yield f"{name}.{field}", inner
        yield from fields(inner, f"{name}.{field}")
    inside = [schema["items"]] if "items" in schema else []
    for branch in (*inside, *schema.get("anyOf", ())):
        yield from fields(branch, name)


def patterns(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for inner in schema.values():
            yield from patterns(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from patterns(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_each_schema_is_a_schema(kind: Kind) -> None:
    schema = load(kind)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described_has_examples_and_says_what_would_be_right(kind: Kind) -> None:
    schema = load(kind)
    found = dict(fields(schema))
    assert found
    for name, inner in found.items():
        inner = schema["$defs"]["nodeName"] if "$ref" in inner else inner
        assert inner["description"].endswith("."), name
        assert inner["errorMessage"].startswith("must be "), name
        validator = Draft202012Validator({**inner, "$defs": schema.get("$defs", {})})
        for example in inner["examples"]:
            assert validator.is_valid(example), (name, example)
        assert validator.is_valid(inner.get("default", inner["examples"][0])), name


@pytest.mark.parametrize("kind", KINDS)
def test_no_mapping_takes_unknown_fields(kind: Kind) -> None:
    def mappings(schema: object) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield schema
            for inner in schema.values():
                yield from mappings(inner)
        elif isinstance(schema, list):
            for inner in schema:
                yield from mappings(inner)

    found = list(mappings(load(kind)))
    assert found
    for mapping in found:
        assert mapping["additionalProperties"] is False or "properties" not in mapping


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_of_a_schema_are_read_without_complaint(kind: Kind) -> None:
    for example in load(kind)["examples"]:
        document = parse_document(kind, json.dumps(example).encode())
        assert isinstance(document, Document), document
        assert document.fields == example


@pytest.mark.parametrize("kind", KINDS)
def test_every_pattern_is_anchored(kind: Kind) -> None:
    """Editors search with a pattern where we match all of it; anchors make that the same."""
    for pattern in patterns(load(kind)):
        assert pattern.startswith("^") and pattern.endswith("$"), pattern


def test_names_in_paths_follow_the_same_rule_as_names_in_files() -> None:
    properties = load(Kind.DEPLOYMENT)["properties"]
    assert properties["model"]["pattern"] == f"^{MODEL_NAME.pattern}$"
    assert properties["group"]["pattern"] == f"^{GROUP_NAME.pattern}$"


@pytest.mark.parametrize(
    ("source", "is_right"),
    [
        ("gs://demo-models/ranker", True),
        ("gs://demo-models/a/b/c/", True),
        ("gs://demo-models/..hidden/...", True),
        ("file:///mnt/models/ranker", True),
        ("gs://demo-models/./a", False),
        ("gs://demo-models/a/..", False),
        ("gs://demo-models/../", False),
        ("gs://demo-models/", False),
        ("gs://Upper/a", False),
        ("gs://a/b", False),
        ("file:///", False),
        ("file://host/a", False),
        (" gs://demo-models/a", False),
        ("gs://demo-models/a\n", False),
    ],
)
def test_sources(source: str, is_right: bool) -> None:
    pattern = load(Kind.DEPLOYMENT)["properties"]["source"]["pattern"]
    assert bool(re.fullmatch(pattern, source)) is is_right
