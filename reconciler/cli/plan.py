"""`reconciler plan`: what a change of the config repo would do, before anybody merges it.

Exit codes: 0 planned; 1 planned, and it cannot be carried out as it is (problems in the files, a
version that is missing, something that does not fit), or git could not be read; 2 there is no such
revision, or wrong usage.
"""

import time
from collections.abc import Callable
from pathlib import Path

import click

from reconciler.cli.options import folder_option
from reconciler.config_repo.checkout import NOT_A_CHECKOUT, UNKNOWN_REVISION, Checkout
from reconciler.errors import GitError
from reconciler.preview.as_json import render_json
from reconciler.preview.listings import find_queries, list_all
from reconciler.preview.markdown import render_markdown
from reconciler.preview.pairs import pair_nodes
from reconciler.preview.past import read_past
from reconciler.preview.preview import make_preview
from reconciler.preview.report import Preview
from reconciler.preview.revisions import Sides, read_sides
from reconciler.preview.text import render_text

_RENDERERS: dict[str, Callable[[Preview], str]] = {
    "text": render_text,
    "json": render_json,
    "markdown": render_markdown,
}
_NO_CONFIG = "NoConfig"
_WRONG_USAGE = (UNKNOWN_REVISION, NOT_A_CHECKOUT, _NO_CONFIG)


@click.command()
@click.argument("base", required=False)
@click.argument("head", required=False)
@folder_option
@click.option(
    "--worktree", is_flag=True, help="Plan for the files as they lie, committed or not, as HEAD."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(_RENDERERS)),
    default="text",
    show_default=True,
    help="For people, for machines, or as a comment under a pull request.",
)
def plan(base: str | None, head: str | None, folder: Path, worktree: bool, form: str) -> None:
    """Show what the nodes would do if the config repo went from BASE to HEAD.

    HEAD is the commit that is checked out unless another is named; BASE is where it left the
    branch that changes go to (origin/HEAD, else origin/main, else origin/master, else the commit
    before it). Only git and the buckets are read; no node is asked.

    Exits with 0 when the change can be carried out, 1 when it cannot be as it is, 2 when there is
    no such revision.
    """
    if worktree and head is not None:
        raise click.UsageError("give HEAD or --worktree, not both")
    try:
        preview = preview_change(folder, base, head, is_worktree=worktree)
    except GitError as error:
        if error.reason in _WRONG_USAGE:
            raise click.UsageError(str(error)) from None
        raise
    click.echo(_RENDERERS[form](preview), nl=False)
    raise SystemExit(0 if preview.is_possible else 1)


def preview_change(
    folder: Path, base: str | None, head: str | None, *, is_worktree: bool = False
) -> Preview:
    """Return what going from `base` to `head` does, in the clone around `folder`.

    Raises GitError where a revision cannot be read, ConfigError where one holds far too much.
    """
    checkout = Checkout(folder)
    sides = read_sides(checkout, base, head, is_worktree=is_worktree)
    _check_config(checkout, sides)
    pairs, undecided = pair_nodes(sides.base, sides.head)
    paths = sorted({path for pair in pairs for path in pair.eventful})
    past = read_past(checkout, sides.base.commit.id, paths)
    available = list_all(find_queries(pairs))
    is_past_cut = bool(paths) and checkout.is_shallow
    return make_preview(
        sides.base, sides.head, pairs, undecided, past, available, time.time(), is_past_cut
    )


def _check_config(checkout: Checkout, sides: Sides) -> None:
    """Refuse a folder that is not the config's: that nothing happens there is no good news."""
    fleets = (sides.base.fleet, sides.head.fleet)
    if not any(f.groups or f.deployments or f.broken or f.problems for f in fleets):
        raise GitError(
            f"there are neither groups nor deployments in {checkout.folder}, before or after; name"
            " the config's folder by -C",
            _NO_CONFIG,
        )
