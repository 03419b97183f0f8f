"""A rendered report says what the schema describes, whatever the report holds."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model import Commit, Condition, Deployment, Outcome, Phase, Problem, Progress
from reconciler.planning.peers import ServerStanding, ServerState
from reconciler.resources import data_folder
from reconciler.status.report import (
    WORST_FIRST,
    Disk,
    NodeReport,
    name_version,
    render,
    timestamp,
    worst_first,
)

SCHEMA: dict[str, Any] = json.loads((data_folder("schema") / "status.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)

_texts = st.text(max_size=20)
_versions = st.integers(0, 2**63 - 1)
_labels = st.dictionaries(_texts, _versions, max_size=2)
_sizes = st.integers(0, 2**60)
_commits = st.builds(
    Commit, id=_texts, author=_texts, subject=_texts, time_seconds=st.floats(-1e15, 1e15)
)
_deployments = st.builds(
    Deployment,
    model=_texts,
    group=_texts,
    path=_texts,
    source=_texts,
    version=st.none() | _versions,
    labels=_labels,
    metadata=st.dictionaries(_texts, _texts, max_size=2),
)
_outcomes = st.builds(
    Outcome,
    deployment=_deployments,
    phase=st.sampled_from(Phase),
    reason=_texts,
    sentence=_texts,
    wanted=st.none() | _versions,
    serving=st.lists(_versions, max_size=3).map(tuple),
    labels=_labels,
    progress=st.none() | st.builds(Progress, _sizes, _sizes),
    last_error=st.none() | _texts,
    retry_in_seconds=st.none() | st.floats(-10, 1e6),
)
_reports = st.builds(
    NodeReport,
    node=_texts,
    group=st.none() | _texts,
    program_version=_texts,
    started_at_seconds=st.floats(0, 4e9),
    generated_at_seconds=st.floats(0, 4e9),
    ready=st.booleans(),
    summary=_texts,
    observed=st.none() | _commits,
    applied=st.none() | _commits,
    outcomes=st.lists(_outcomes, max_size=3).map(tuple),
    removals=st.lists(_outcomes, max_size=2).map(tuple),
    conditions=st.lists(
        st.builds(Condition, _texts, st.booleans(), _texts, _texts), max_size=2
    ).map(tuple),
    problems=st.lists(
        st.builds(Problem, _texts, st.integers(0, 9), st.integers(0, 9), _texts), max_size=2
    ).map(tuple),
    disk=st.none() | st.builds(Disk, _sizes, _sizes, _sizes),
    server=st.none() | st.builds(ServerStanding, _texts, st.sampled_from(ServerState), _texts),
)


@settings(max_examples=60)
@given(_reports)
def test_a_rendered_report_is_what_the_schema_describes(report: NodeReport) -> None:
    rendered = json.loads(json.dumps(render(report), allow_nan=False))

    VALIDATOR.validate(rendered)
    assert undescribed(rendered, SCHEMA) == []


def undescribed(value: Any, schema: dict[str, Any], place: str = "$") -> list[str]:
    """Name the fields of `value` that the schema, which is open to new ones, does not know."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in schema:
        chosen = [one for one in schema["anyOf"] if (one == {"type": "null"}) == (value is None)]
        return undescribed(value, chosen[0], place)
    if isinstance(value, list):
        return [name for item in value for name in undescribed(item, schema["items"], place)]
    if not isinstance(value, dict) or "additionalProperties" in schema:
        return []
    unknown = [f"{place}.{key}" for key in value if key not in schema["properties"]]
    known = ((key, item) for key, item in value.items() if key in schema["properties"])
    return unknown + [
        name
        for key, item in known
        for name in undescribed(item, schema["properties"][key], f"{place}.{key}")
    ]


def test_every_field_of_the_schema_is_described() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    objects = [SCHEMA, *SCHEMA["$defs"].values()]
    fields = [field for item in objects for field in item["properties"].items()]
    assert len(fields) > 50
    assert [name for name, field in fields if not field.get("description")] == []


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(0.0, "1970-01-01T00:00:00.000Z", id="epoch"),
        pytest.param(1_700_000_000.1234, "2023-11-14T22:13:20.123Z", id="milliseconds"),
        pytest.param(-5.0, "1970-01-01T00:00:00.000Z", id="before-the-epoch"),
        pytest.param(1e18, "9999-12-31T23:59:59.000Z", id="beyond-all-years"),
    ],
)
def test_times_are_rfc_3339_in_utc(seconds: float, expected: str) -> None:
    assert timestamp(seconds) == expected


def test_deployments_are_sorted_by_model_and_the_worst_is_a_question_for_the_reader() -> None:
    phases = {"a": Phase.DEPLOYED, "b": Phase.STOPPED, "c": Phase.FAILED, "d": Phase.DEPLOYING}
    report = report_of(*(outcome(model, phase) for model, phase in reversed(phases.items())))

    rendered = render(report)["deployments"]

    assert [item["model"] for item in rendered] == ["a", "b", "c", "d"]
    assert [item["model"] for item in worst_first(rendered)] == ["c", "d", "a", "b"]
    assert set(WORST_FIRST) == set(Phase)


def test_a_retry_is_told_as_a_moment_and_as_a_duration() -> None:
    failing = Outcome(
        outcome("ranker").deployment, Phase.FAILED, "LoadFailed", "It fails.", retry_in_seconds=90
    )

    item = render(report_of(failing))["deployments"][0]

    assert (item["retry_in_seconds"], item["retry_at"]) == (90, "1970-01-01T00:18:10.000Z")


def outcome(model: str, phase: Phase = Phase.DEPLOYED) -> Outcome:
    deployment = Deployment(model, "search", f"deployments/search/{model}.yaml", f"gs://b/{model}")
    return Outcome(deployment, phase, "Reason", "A sentence.")


def report_of(*outcomes: Outcome) -> NodeReport:
    return NodeReport("search-1", "search", "0.1.0", 0, 1000, True, "did this", outcomes=outcomes)


def test_versions_by_name_have_their_names_beside_their_numbers() -> None:
    plain, named = outcome("plain"), replace(outcome("ranker"), names={10**12: "1.0.0", 7: "0.0.7"})
    rendered = render(report_of(named, plain))["deployments"]
    assert [item["version_names"] for item in rendered] == [
        {},
        {"7": "0.0.7", "1000000000000": "1.0.0"},
    ]
    assert name_version(rendered[1], 10**12) == "1.0.0"
    assert name_version(rendered[1], 8) == "8"
    assert name_version({}, 8) == "8"  # of an older agent
