"""Problems of a config repo in the forms in which CI systems show them beside the changed line."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence

from reconciler.model import Problem

_CHECK_NAME = "reconciler-validate"


def render_github(problems: Sequence[Problem]) -> Iterator[str]:
    """Yield a workflow command for each problem, which GitHub Actions turns into an annotation.

    Of one step GitHub shows ten annotations; the others are in the step's log alone.
    """
    for problem in problems:
        place = f"file={_escape_property(problem.path)},line={problem.line},col={problem.column}"
        yield f"::error {place},title=reconciler validate::{_escape(problem.message)}"


def render_gitlab(problems: Sequence[Problem]) -> str:
    """Return the problems as a Code Quality report.

    GitLab tells a new problem from an old one by its fingerprint, so that a line put in above
    leaves it as it is, and the same mistake twice in one file is two problems.
    """
    seen: Counter[tuple[str, str]] = Counter()
    report = []
    for problem in problems:
        said = (problem.path, problem.message)
        identity = json.dumps([_CHECK_NAME, *said, seen[said]])
        seen[said] += 1
        report.append(
            {
                "description": problem.message,
                "check_name": _CHECK_NAME,
                "fingerprint": hashlib.sha256(identity.encode()).hexdigest(),
                "severity": "major",
                "location": {"path": problem.path, "lines": {"begin": problem.line}},
            }
        )
    return json.dumps(report, indent=2)


def render_json(problems: Sequence[Problem]) -> str:
    """Return the problems, and in how many files they are, as one object."""
    content = {
        "problems": [
            {
                "path": problem.path,
                "line": problem.line,
                "column": problem.column,
                "message": problem.message,
            }
            for problem in problems
        ],
        "files": len({problem.path for problem in problems}),
    }
    return json.dumps(content, indent=2)


def _escape(text: str) -> str:
    """Return text that cannot end a workflow command and begin another."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
