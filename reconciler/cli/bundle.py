"""`reconciler bundle`: puts the config repo into a bucket, for nodes to follow it there."""

import re
from pathlib import Path

import click

from reconciler.cli.options import folder_option


@click.command("bundle")
@click.argument("url")
@folder_option
@click.option(
    "--branch", default="main", metavar="NAME", show_default=True, help="Branch that nodes follow."
)
def bundle(url: str, folder: Path, branch: str) -> None:
    """Write the config repo's branch to the object URL, gs://bucket/fleet.bundle.

    Nodes whose repo is that URL follow it there, and the git server is asked by none of them. Run
    it in CI after each merge, or from cron after a fetch, in a clone with the whole history. What
    is written is origin's branch as it was last fetched. An older commit never takes the place of
    a newer one, unless the branch was forced on the git server, which is then asked.

    Exit code: 0 the object is as new as the branch, 1 nothing was written, 2 wrong usage.
    """
    from reconciler.config_repo.bundle_publish import Step, publish_bundle
    from reconciler.config_repo.checkout import Checkout, show_id
    from reconciler.planning.wording import format_bytes

    if not re.fullmatch(r"gs://[^/]+/.*[^/]", url):
        raise click.BadParameter(f"{url!r} is not of the form gs://bucket/object", param_hint="URL")
    done = publish_bundle(Checkout(folder), url, branch)
    name = f"{branch} at {show_id(done.commit_id)}"
    if done.step is Step.NONE:
        click.echo(f"{url} has {name} already")
        return
    if done.step is Step.FORCED:
        click.echo(
            f"{branch} was forced: what nodes followed so far is not part of it any more", err=True
        )
    click.echo(f"wrote {name} to {url} ({format_bytes(done.size_bytes)})")
