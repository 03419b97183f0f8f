"""How long `reconciler history` takes over a long past: 10,000 commits unless told otherwise.

    python bench/history.py [COMMITS]

The past is like that of a team: version bumps of 200 models, every tenth by a merged branch of two
commits, lock commits, and a move between groups now and then. Prints the seconds of the whole
command, as a person would wait for it.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MODELS = 200
GROUPS = ("search", "vision")
DIGEST = "0" * 64


def main() -> None:
    commits = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_repository(folder, commits)
        for arguments in ([], ["--limit", "1000"], ["--all"], ["model-7", "--all"]):
            seconds = measure(folder, arguments)
            print(f"{commits} commits, history {' '.join(arguments):16} {seconds:6.2f} s")


def measure(folder: Path, arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "reconciler.cli.main", "history", "-C", folder, *arguments],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def make_repository(folder: Path, commits: int) -> None:
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", folder], check=True)
    stream = "".join(write_stream(commits)).encode()
    subprocess.run(["git", "fast-import", "--quiet"], cwd=folder, input=stream, check=True)
    subprocess.run(["git", "repack", "-adq"], cwd=folder, check=True)


def write_stream(commits: int) -> Iterator[str]:
    """Yield the past in the words of `git fast-import`."""
    homes = dict.fromkeys(range(MODELS), 0)
    yield write_commit(1, "main", "Begin", [write_group(group) for group in GROUPS])
    mark = 2
    while mark <= commits:
        model = mark * 7 % MODELS
        home = f"deployments/{GROUPS[homes[model] % 2]}/model-{model}"
        if mark % 500 == 0 and mark > MODELS:
            homes[model] += 1
            new = f"deployments/{GROUPS[homes[model] % 2]}/model-{model}.yaml"
            moved = [f"D {home}.yaml\n", write_file(new, write_deployment(model, mark))]
            yield write_commit(mark, "main", f"Move model-{model}", moved)
            mark += 1
        elif mark % 10 == 0:
            base = mark - 1
            for number in (mark, mark + 1):
                text = write_file(f"{home}.yaml", write_deployment(model, number))
                origin = base if number == mark else None
                yield write_commit(number, f"branch-{mark}", f"Try {number}", [text], origin)
            text = write_file(f"{home}.yaml", write_deployment(model, mark + 1))
            yield write_commit(mark + 2, "main", "Merge", [text], merged=mark + 1)
            mark += 3
        else:
            files = [write_file(f"{home}.yaml", write_deployment(model, mark))]
            if mark % 3 == 0:
                files.append(write_file(f"{home}.lock.yaml", write_lock(model, mark)))
            yield write_commit(mark, "main", f"model-{model} -> {mark}", files)
            mark += 1


def write_commit(
    mark: int,
    branch: str,
    subject: str,
    changes: list[str],
    origin: int | None = None,
    merged: int | None = None,
) -> str:
    who = f"Ada <ada@example.org> {1_700_000_000 + mark * 600} +0000"
    message = f"{subject}\n\nBecause it was asked for.\n"
    begin = f"from :{origin}\n" if origin else ""
    begin += f"merge :{merged}\n" if merged else ""
    head = f"commit refs/heads/{branch}\nmark :{mark}\nauthor {who}\ncommitter {who}\n"
    return f"{head}data {len(message)}\n{message}{begin}{''.join(changes)}\n"


def write_group(group: str) -> str:
    return write_file(f"groups/{group}.yaml", f"nodes: [{group}-1, {group}-2]\n")


def write_deployment(model: int, version: int) -> str:
    return (
        "# yaml-language-server: $schema=../../schema/deployment.schema.json\n"
        f"source: gs://acme-models/model-{model}\nversion: {version}\n"
        f"labels: {{stable: {version}}}\ndescription: Model {model} of the bench\n"
    )


def write_lock(model: int, version: int) -> str:
    return (
        f"model: model-{model}\nsource: gs://acme-models/model-{model}\nversion: {version}\n"
        f"locked:\n  - version: {version}\n    files: 4\n    bytes: 1234567\n"
        f"    digest: sha256:{DIGEST}\n"
    )


def write_file(path: str, text: str) -> str:
    return f"M 644 inline {path}\ndata {len(text)}\n{text}\n"


if __name__ == "__main__":
    main()
