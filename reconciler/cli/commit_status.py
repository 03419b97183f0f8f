"""`reconciler commit-status`: tells GitHub or GitLab how far the fleet is with a commit.

From one place, a CI job after the merge or a cron job, and not from each node: a node then needs
no token that may write, and the mark beside the commit is about all of them. What each node says
of itself is asked of the addresses in groups/*.yaml.
"""

import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from reconciler.cli.access import access_options
from reconciler.cli.forge_options import find_forge, forge_options
from reconciler.cli.options import folder_option
from reconciler.config_repo.checkout import Checkout, show_id
from reconciler.config_repo.fleets import FleetReader
from reconciler.errors import ConfigError, GitError
from reconciler.forge.forges import CommitStatus
from reconciler.forge.statuses import send_status
from reconciler.model import Commit, Member
from reconciler.settings import parse_duration
from reconciler.status.access import Access
from reconciler.status.client import StatusError, fetch_status, parse_status
from reconciler.status.followers import Mark, Standing, shorten, stand, summarise
from reconciler.status.report import Json

_LOOK_EVERY_SECONDS = 5.0
_NODE_DEADLINE_SECONDS = 10.0
_MAX_ASKED_AT_ONCE = 32
_COMMIT_ID = re.compile(r"[0-9a-f]{40}")


@click.command("commit-status")
@folder_option
@click.argument("revision", metavar="[COMMIT]", default="HEAD")
@forge_options
@click.option("--target-url", metavar="URL", help="What the mark leads to, such as a dashboard.")
@click.option(
    "--wait",
    "wait",
    default="0s",
    metavar="DURATION",
    help="Look again until it has come right or gone wrong, for this long.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be said, and say it to nobody.")
@access_options
def commit_status(
    folder: Path,
    revision: str,
    kind: str,
    project: str,
    api_url: str | None,
    token_file: Path | None,
    target_url: str | None,
    wait: str,
    dry_run: bool,
    access: Access,
) -> None:
    """Say at GitHub or GitLab how far the nodes are with COMMIT (default: HEAD).

    success: every node whose address is in groups/*.yaml has applied it, or a newer one that
    contains it. failure: a file of it is not valid, a deployment of it failed on a node, or a
    node refused it as not signed. pending: all else, also a node that does not answer.

    Exit codes: 0 success, 1 pending, failure or not said, 2 wrong usage.
    """
    if target_url is not None and not re.fullmatch(r"https?://[!-~]+", target_url):
        raise click.UsageError("--target-url must be a URL that begins with http:// or https://")
    wait_seconds = parse_duration(wait)
    forge = find_forge(kind, project, api_url, token_file, needs_token=not dry_run)
    checkout = Checkout(folder)
    watch = _Watch(checkout, checkout.resolve(revision), access)
    end = time.monotonic() + wait_seconds
    said: Mark | None = None
    while True:
        mark, words, standings = watch.look()
        is_last = mark is not Mark.PENDING or time.monotonic() + _LOOK_EVERY_SECONDS > end
        # Of a commit under way it is said once that it is, and at the end how it ended.
        if mark is not said or is_last:
            click.echo(f"{mark}: {words}")
            if not dry_run:
                send_status(forge, CommitStatus(watch.commit.id, mark, words, target_url))
            said = mark
        if is_last:
            break
        time.sleep(_LOOK_EVERY_SECONDS)
    for standing in standings:
        if standing.mark is not Mark.SUCCESS:
            click.echo(str(standing), err=True)
    sys.exit(0 if mark is Mark.SUCCESS else 1)


class _Watch:
    """The nodes of one commit, asked again and again how far they are."""

    def __init__(self, checkout: Checkout, commit: Commit, access: Access) -> None:
        """Raises ConfigError where the commit names no node that could be asked."""
        self.commit = commit
        self._checkout = checkout
        self._access = access
        self._known: dict[str, bool] = {}
        self._has_fetched = False
        fleet = FleetReader(checkout).read(commit.id)
        self._problems = fleet.problems
        members = sorted(
            (member for group in fleet.groups.values() for member in group.nodes),
            key=lambda member: member.name,
        )
        self._members = [member for member in members if member.address is not None]
        self._unasked = len(members) - len(self._members)
        if not self._members and not self._problems:
            raise ConfigError(
                f"no node in groups/*.yaml of commit {show_id(commit.id)} has an address, so none"
                ' can be asked; write `- {name: search-1, address: "search-1:8080"}`'
            )

    def look(self) -> tuple[Mark, str, Sequence[Standing]]:
        """Ask every node once; return how far all are, in a line, and how far each is."""
        if self._problems:
            more = f" (and {len(self._problems) - 1} more)" if len(self._problems) > 1 else ""
            return Mark.FAILURE, shorten(f"not valid: {self._problems[0]}{more}"), ()
        self._has_fetched = False
        with ThreadPoolExecutor(min(_MAX_ASKED_AT_ONCE, len(self._members))) as pool:
            answers = list(pool.map(self._ask, self._members))
        standings = [
            Standing(member.name, Mark.PENDING, str(answer))
            if isinstance(answer, StatusError)
            else stand(member.name, self.commit.id, answer, self._contains)
            for member, answer in zip(self._members, answers, strict=True)
        ]
        return *summarise(standings, self._unasked), standings

    def _ask(self, member: Member) -> Json | StatusError:
        try:
            body = fetch_status(str(member.address), _NODE_DEADLINE_SECONDS, access=self._access)
            return parse_status(body)
        except StatusError as error:
            return error

    def _contains(self, commit_id: str) -> bool | None:
        """Tell whether a commit that a node named contains ours; None where git lacks it."""
        if commit_id not in self._known:
            if not _COMMIT_ID.fullmatch(commit_id) or not self._holds(commit_id):
                return None
            self._known[commit_id] = self._checkout.succeeds(
                "merge-base", "--is-ancestor", self.commit.id, commit_id
            )
        return self._known[commit_id]

    def _holds(self, commit_id: str) -> bool:
        """Tell whether the clone has a commit, after a fetch if need be: nodes may be ahead."""
        if self._checkout.succeeds("cat-file", "-e", f"{commit_id}^{{commit}}"):
            return True
        if self._has_fetched:
            return False
        self._has_fetched = True
        try:
            self._checkout.succeeds("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
        except GitError:
            return False  # a git server that hangs leaves the question open, not the nodes
        return self._checkout.succeeds("cat-file", "-e", f"{commit_id}^{{commit}}")
