"""`reconciler validate DIR`: all problems of a folder, and its exit codes."""

import re
from pathlib import Path

from click.testing import CliRunner, Result

from reconciler.cli.validate import validate
from reconciler.config_repo.fleets import read_folder
from reconciler.resources import data_folder


def run(folder: Path) -> Result:
    return CliRunner().invoke(validate, [str(folder)])


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)


def test_the_example_is_in_order() -> None:
    folder = data_folder("example-config-repo")
    assert read_folder(folder).problems == []
    result = run(folder)
    assert result.exit_code == 0
    assert result.output == f"{folder} is in order.\n"


def test_the_example_names_its_schemas_and_the_fixed_models() -> None:
    folder = data_folder("example-config-repo")
    files = sorted(folder.rglob("*.yaml"))
    for file in files:
        first = file.read_text().splitlines()[0]
        named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
        assert named is not None, file
        assert (file.parent / named[1]).resolve().is_file(), file
    assert [file.relative_to(folder).as_posix() for file in files] == [
        "deployments/search/ranker.yaml",
        "deployments/search/similar.yaml",
        "deployments/search/speller.yaml",
        "deployments/search/suggest.yaml",
        "deployments/vision/captions.yaml",
        "deployments/vision/detector.yaml",
        "fleet.yaml",
        "groups/search.yaml",
        "groups/vision.yaml",
    ]


def test_every_problem_is_a_line_that_editors_understand(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "fleet.yaml": "keep: -1\n",
            "groups/search.yaml": "nodes: [a]\n",
            "groups/other.yml": "nodes: [b]\n",
            "deployments/search/ranker.yaml": "verison: 1\nsource: gs://demo-models/ranker\n",
            "deployments/search/big.yaml": b"#" * 50_000_000,
            "deployments/search/binary.yaml": b"\xff\xfe\x00",
            "deployments/nope/x.yaml": "version: 1\nsource: gs://demo-models/x//y\n",
            ".git/config": "nodes: [",
            "README.md": "not YAML",
        },
    )
    (tmp_path / "deployments/search/link.yaml").symlink_to("/etc/passwd")
    (tmp_path / "deployments/linked").symlink_to(tmp_path / "deployments/search")
    result = run(tmp_path)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert [line.removeprefix(f"{tmp_path}/").split(": ", 1)[0] for line in lines[:-1]] == [
        "deployments/linked:1:1",
        "deployments/nope/x.yaml:2:9",
        "deployments/search/big.yaml:1:1",
        "deployments/search/binary.yaml:1:1",
        "deployments/search/link.yaml:1:1",
        "deployments/search/ranker.yaml:1:1",
        "deployments/search/ranker.yaml:1:1",
        "fleet.yaml:1:7",
        "groups/other.yml:1:1",
    ]
    assert "gs://demo-models/x//y" in lines[1]
    assert "did you mean version?" in result.output
    assert lines[-1] == f"9 problems in 8 files of {tmp_path}."


def test_problems_between_files_are_found_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "groups/search.yaml": "nodes: [a]\n",
            "deployments/search/ranker.yaml": (
                "source: gs://demo-models/m\nversion: 1\nreplicas: 2\n"
            ),
        },
    )
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "replicas is 2 but group search has 1 node; write 1 or all" in result.output
    assert result.output.endswith(f"1 problem in 1 file of {tmp_path}.\n")


def test_a_folder_that_is_missing_or_no_config_is_bad_usage(tmp_path: Path) -> None:
    result = run(tmp_path / "missing")
    assert result.exit_code == 2
    assert "does not exist" in result.output
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "holds neither fleet.yaml nor groups/ nor deployments/" in result.output
