"""JSON Schema's errors as sentences for a person.

jsonschema says "'verison' does not match any of the regexes"; a person needs the place and what
would be right. Each field of the schemas carries that as `errorMessage`, the keyword which editors
show as well, so that an editor, a pull request and /status say the same.
"""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from reconciler.config_repo.layout import Kind
from reconciler.config_repo.yaml_text import Mistake, Path, Spot, Text, show
from reconciler.resources import read_schema


def check_schema(kind: Kind, text: Text) -> tuple[Mistake, ...]:
    """Return what the schema of `kind` finds wrong with the values of a text, in order."""
    mistakes: set[Mistake] = set()
    for error in _flatten(_validator(kind).iter_errors(text.value)):
        mistakes.update(_explain(error, text))
    return tuple(sorted(mistakes))


@cache
def _validator(kind: Kind) -> Draft202012Validator:
    schema = json.loads(read_schema(kind))
    # 1.0 is an integer to JSON Schema, but not a version to anybody.
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    strict: Any = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": _match_whole}, type_checker=types
    )
    validator: Draft202012Validator = strict(schema)
    return validator


def _is_integer(_checker: object, instance: object) -> bool:
    return isinstance(instance, int) and not isinstance(instance, bool)


def _match_whole(
    _validator: object, pattern: str, instance: object, _schema: object
) -> Iterator[ValidationError]:
    """Match a pattern against the whole text: `$` alone would let a last line break pass."""
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield ValidationError(f"does not match {pattern}")


def _flatten(errors: Iterator[ValidationError]) -> Iterator[ValidationError]:
    """Replace the failure of all branches by those of the branch that was meant, if one was."""
    for error in errors:
        meant = _meant_branch(error) if error.validator == "anyOf" else None
        if meant is None:
            yield error
        else:
            yield from _flatten(iter(meant))


def _meant_branch(error: ValidationError) -> list[ValidationError] | None:
    """A mapping can only have been meant for the branch that takes a mapping, and so a list."""
    if not isinstance(error.instance, dict | list):
        return None
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    for inner_errors in branches.values():
        if not any(inner.validator == "type" and not inner.path for inner in inner_errors):
            return inner_errors
    return None


def _explain(error: ValidationError, text: Text) -> Iterator[Mistake]:
    path: Path = tuple(error.absolute_path)
    if path in text.spoiled:
        return
    schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    instance: Any = error.instance
    match error.validator:
        case "additionalProperties":
            known = list(schema.get("properties", ()))
            for name in instance:
                if name not in known:
                    yield _mistake(text.keys[(*path, name)], _explain_unknown(name, known))
        case "required":
            for name in schema["required"]:
                if name not in instance:
                    yield _mistake(text.spots[path], _explain_missing(name, schema))
        case _ if "propertyNames" in error.absolute_schema_path:
            yield _mistake(text.keys[(*path, instance)], _say(show(instance), schema))
        case _:
            where = f"{_name(path)} ({_describe(instance)})" if path else "the file"
            hint = "; remove the quotes" if _is_quoted_number(instance, schema) else ""
            if _is_unquoted_text(instance, text.spots[path], schema):
                hint = f'; write "{text.spots[path].text}" in quotes'
            yield _mistake(text.spots[path], _say(where, schema) + hint)


def _is_quoted_number(instance: object, schema: dict[str, Any]) -> bool:
    branches = (schema, *schema.get("anyOf", ()))
    wants_number = any(branch.get("type") == "integer" for branch in branches)
    return wants_number and isinstance(instance, str) and instance.isdecimal()


def _is_unquoted_text(instance: object, spot: Spot, schema: dict[str, Any]) -> bool:
    """Whether what is written would be right if it were not read as a number."""
    if not isinstance(instance, int | float) or "pattern" not in schema:
        return False
    return schema.get("type") == "string" and bool(re.fullmatch(schema["pattern"], spot.text))


def _explain_unknown(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"unknown field {show(name)}; {hint}"


def _explain_missing(name: str, schema: dict[str, Any]) -> str:
    examples = schema.get("properties", {}).get(name, {}).get("examples")
    hint = f"; write for example `{name}: {_write(examples[0])}`" if examples else ""
    return f"the field {name} is missing{hint}"


def _write(example: object) -> str:
    return example if isinstance(example, str) else json.dumps(example).replace('"', "")


def _say(subject: str, schema: dict[str, Any]) -> str:
    return f"{subject} {schema.get('errorMessage', 'is not what the schema asks for')}"


def _name(path: Path) -> str:
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _describe(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {show(value)}"
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "a mapping"
    return str(value)


def _mistake(spot: Spot, message: str) -> Mistake:
    return Mistake(spot.line, spot.column, message)
