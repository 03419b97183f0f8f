"""All targets, with what they need."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz import answers, config_repo, files
from tests.fuzz.target import Target


@contextmanager
def open_targets() -> Iterator[list[Target]]:
    """Give all targets; what they need is there during the block."""
    with (
        tempfile.TemporaryDirectory() as folder,
        answers.serve_listings() as listing,
        answers.serve_reads() as read,
    ):
        yield [
            *config_repo.make_targets(),
            *answers.make_targets(),
            listing,
            read,
            *files.make_targets(Path(folder)),
        ]
