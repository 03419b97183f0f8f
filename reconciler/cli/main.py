"""The `reconciler` command: a list of subcommands, each imported when it is used.

Nothing heavy is imported here, so that `reconciler --help` answers at once.
"""

import importlib
import io
import sys

import click

from reconciler import __version__
from reconciler.errors import ReconcilerError

EXIT_CODES = """\
Exit codes: 0 all is well; 1 something is not as it should be (not converged, a mistake found, a
scene of the demo that did not come out, the agent ended by an error); 2 settings or arguments
that cannot work.
"""

_COMMANDS = {
    "run": ("reconciler.cli.run", "Run the agent of this node until it is stopped."),
    "once": ("reconciler.cli.run", "Bring this node to its desired state once, then end."),
    "validate": ("reconciler.cli.validate", "Check a config repo; every mistake with its place."),
    "status": ("reconciler.cli.status", "Show what a node says of itself."),
    "fleet": ("reconciler.cli.fleet", "Show what all nodes serve, what is wrong first."),
    "plan": ("reconciler.cli.plan", "Show what a change of the config repo would do."),
    "comment": ("reconciler.cli.comment", "Put a plan into a pull request as a comment."),
    "lock": ("reconciler.cli.lock", "Write down which bytes each deployment stands for."),
    "pin": ("reconciler.cli.rollback", "Commit another version of a model."),
    "rollback": ("reconciler.cli.rollback", "Commit the way back to an earlier version."),
    "history": ("reconciler.cli.history", "Show who changed which model when, and why."),
    "commit-status": ("reconciler.cli.commit_status", "Tell GitHub or GitLab how a commit fared."),
    "pause": ("reconciler.cli.pause", "Break the glass: leave this node as it is for a while."),
    "resume": ("reconciler.cli.pause", "End a pause of this node."),
    "publish": ("reconciler.cli.publish", "Upload an exported SavedModel as the next version."),
    "bundle": ("reconciler.cli.bundle", "Put the config repo into a bucket, for nodes to follow."),
    "ingress": ("reconciler.cli.ingress", "Send callers where their model is served: proxies."),
    "demo": ("reconciler.cli.demo", "Play the main job on this machine, with nothing else."),
    "dev": ("reconciler.cli.dev", "Tools for trying things out: a stand-in model server."),
}


class _LazyGroup(click.Group):
    """Imports a subcommand's module only when that subcommand is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)  # noqa: S101 - a slip in the table above
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, epilog=EXIT_CODES, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="reconciler")
def cli() -> None:
    """GitOps for TensorFlow Serving: git says which models each node serves.

    A reconciler runs on every node. It pulls the config repo, finds the versions in Cloud
    Storage, downloads and verifies them, tells TensorFlow Serving, and removes what nothing needs
    any more. Start with `reconciler demo`, then `reconciler run --help`.
    """


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it was closed
            # What a terminal's character set lacks, or a file's odd name, is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="reconciler")
    except ReconcilerError as error:
        click.echo(f"reconciler: {error}", err=True)
        sys.exit(2 if error.reason == "BadSettings" else 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"reconciler: {where}{error.strerror or error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
