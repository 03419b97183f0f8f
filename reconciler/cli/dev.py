"""`reconciler dev`: tools for those who work on or try out the reconciler."""

import os
import signal

import click


@click.group()
def dev() -> None:
    """Tools for development and for trying things out."""


@dev.command(
    "tf-serving",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def tf_serving(arguments: tuple[str, ...]) -> None:
    """Run the stand-in for tensorflow_model_server; takes its flags, --help lists them."""
    from reconciler.standin.program import run

    # As the real server: any signal ends it at once, whatever it is waiting for.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os._exit(run(list(arguments)))
