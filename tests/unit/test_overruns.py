"""What `validate` says of quotas, by git alone."""

from pathlib import Path

import pytest

from reconciler.config_repo.fleets import read_folder
from reconciler.config_repo.overruns import find_overruns

LOCK = """model: {model}
source: gs://acme/{model}
version: 1
locked:
- {{version: 1, files: 2, bytes: {size}, digest: 'sha256:{digest}'}}
"""


def write(folder: Path, group: str, models: dict[str, str], sizes: dict[str, int]) -> list[str]:
    texts = {"groups/g.yaml": group}
    for model, more in models.items():
        texts[f"deployments/g/{model}.yaml"] = f"source: gs://acme/{model}\nversion: 1\n{more}"
    for model, size in sizes.items():
        text = LOCK.format(model=model, size=size, digest="0" * 64)
        texts[f"deployments/g/{model}.lock.yaml"] = text
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    fleet = read_folder(folder)
    assert fleet.problems == []
    return [str(problem) for problem in find_overruns(fleet)]


@pytest.mark.parametrize(
    ("quota", "why"),
    [
        ("{models: 2}", "it would be model 3 of 2"),
        ("{disk: 2500B}", "it needs 1.0 kB of disk, and those before it use 2.0 kB of 2.5 kB"),
        ("{memory: 2kB}", "it needs 1.0 kB of memory, and those before it use 2.0 kB of 2.0 kB"),
    ],
)
def test_the_one_that_is_too_much_is_named_with_the_numbers(
    tmp_path: Path, quota: str, why: str
) -> None:
    group = f"nodes: [n1, n2]\nquota: {quota}\n"
    found = write(tmp_path, group, dict.fromkeys("abc", ""), dict.fromkeys("abc", 1000))
    assert found == [
        f"deployments/g/c.yaml:1:1: c does not fit the quota of group g on n1 and n2: {why};"
        " remove a model, add nodes, or raise the quota in groups/g.yaml"
    ]


def test_what_fits_is_in_order(tmp_path: Path) -> None:
    group = "nodes: [n1]\nquota: {models: 3, disk: 3000B, memory: 3000B}\n"
    assert write(tmp_path, group, dict.fromkeys("abc", ""), dict.fromkeys("abc", 1000)) == []


def test_what_is_stopped_takes_no_place(tmp_path: Path) -> None:
    models = {"a": "stop: true\n", "b": "", "c": ""}
    assert write(tmp_path, "nodes: [n1]\nquota: {models: 2}\n", models, {}) == []
    group = "nodes: [n1]\nquota: {models: 1}\nenabled: false\n"
    assert write(tmp_path, group, models, {}) == []


def test_only_the_nodes_that_hold_it_count(tmp_path: Path) -> None:
    """Two models of one replica each, on two nodes of which each may have one."""
    models = {f"m{number}": "replicas: 1\n" for number in range(6)}
    found = write(tmp_path, "nodes: [n1, n2]\nquota: {models: 3}\n", models, {})
    held = {line.split(" on ")[1].split(":")[0] for line in found}
    assert held <= {"n1", "n2"}
    assert len(found) < 3
    assert write(tmp_path, "nodes: [n1, n2]\nquota: {models: 6}\n", models, {}) == []


def test_of_nodes_that_a_registry_knows_what_all_hold_counts(tmp_path: Path) -> None:
    group = "nodes: {dns: tasks.agent, port: 8080}\nquota: {models: 1}\n"
    models = {"a": "", "b": "", "c": "replicas: 1\n"}
    found = write(tmp_path, group, models, {})
    assert found == [
        "deployments/g/b.yaml:1:1: b does not fit the quota of group g: it would be model 2 of 1;"
        " remove a model, add nodes, or raise the quota in groups/g.yaml"
    ]
