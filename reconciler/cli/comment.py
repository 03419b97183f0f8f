"""`reconciler comment`: puts a plan under a pull or merge request, always in the same comment.

The plan is made by `reconciler plan --format markdown` in a step of its own, which needs the
bucket and no forge; this one needs the forge and no bucket.
"""

from pathlib import Path
from typing import BinaryIO, Final

import click

from reconciler.cli.forge_options import find_forge, forge_options
from reconciler.forge.comments import Deed, Written, put_comment
from reconciler.preview.markdown import MARKER

MAX_CHARACTERS: Final = 65_000
"""GitHub takes comments of up to 65,536."""

_SAID = {
    Deed.MADE: "made {}",
    Deed.UPDATED: "updated {}",
    Deed.LEFT: "{} says so already",
}
_WOULD_SAY = {
    Deed.MADE: "would make {}",
    Deed.UPDATED: "would update {}",
    Deed.LEFT: "{} says so already",
}


@click.command("comment")
@click.argument("file", type=click.File("rb"))
@forge_options
@click.option(
    "--request",
    type=click.IntRange(min=1),
    required=True,
    metavar="NUMBER",
    help="The number of the pull or merge request.",
)
@click.option("--dry-run", is_flag=True, help="Look, say what would be done, and write nothing.")
def comment(
    file: BinaryIO,
    kind: str,
    project: str,
    api_url: str | None,
    token_file: Path | None,
    request: int,
    dry_run: bool,
) -> None:
    """Put the plan in FILE (- for standard input) into a pull or merge request.

    FILE is what `reconciler plan --format markdown` printed. The comment of the run before is
    found by its first line and written over; without one, a new comment is made. What is there
    already is not written again. A comment that somebody else wrote is left to them.

    Exit codes: 0 the comment is there, 1 it could not be written, 2 wrong usage.
    """
    text = _read_plan(file)
    forge = find_forge(kind, project, api_url, token_file, needs_token=True)
    written = put_comment(forge, request, MARKER, text, is_dry_run=dry_run)
    words = _WOULD_SAY if dry_run else _SAID
    click.echo(words[written.deed].format(_name(written)))


def _read_plan(file: BinaryIO) -> str:
    """Return the text; wrong usage where it is none that belongs into a request."""
    content = file.read(4 * MAX_CHARACTERS + 1)
    try:
        # An end that was cut off within a letter is far beyond the limit anyway.
        text = content.decode("utf-8", "strict" if len(content) <= 4 * MAX_CHARACTERS else "ignore")
    except UnicodeDecodeError:
        raise click.UsageError(f"FILE is not text in UTF-8; {_WANTED}") from None
    if not text.strip():
        raise click.UsageError(f"FILE is empty; {_WANTED}")
    if text.splitlines()[0] != MARKER:
        raise click.UsageError(f"FILE does not begin with {MARKER}; {_WANTED}")
    if len(text) > MAX_CHARACTERS:
        raise click.UsageError(
            f"FILE is longer than {MAX_CHARACTERS:,} characters, which no forge takes; {_WANTED}"
        )
    return text


_WANTED = "give what `reconciler plan --format markdown` printed"


def _name(written: Written) -> str:
    """Return the comment as people can find it."""
    if written.url is not None:
        return f"the comment {written.url}"
    return "a comment" if written.comment_id is None else f"comment {written.comment_id}"
