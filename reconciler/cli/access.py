"""The options of commands that ask nodes, or answer as one: tokens and certificates."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from reconciler.settings import environment_name
from reconciler.status.access import Access

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def access_options(command: CommandT) -> CommandT:
    """Give `command` the options, and call it with what they come to as `access`."""

    @click.option(
        "--read-token-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        envvar=environment_name("read_token_file"),
        help="File with the nodes' read token, where they have one."
        f"  [{environment_name('read_token_file')}]",
    )
    @click.option(
        "--tls-ca-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        envvar=environment_name("tls_ca_file"),
        help="Certificates that those of https:// nodes are signed by, PEM. Default: the system's."
        f"  [{environment_name('tls_ca_file')}]",
    )
    @functools.wraps(command)
    def with_access(
        *arguments: Any, read_token_file: Path | None, tls_ca_file: Path | None, **values: Any
    ) -> Any:
        return command(*arguments, access=Access(read_token_file, tls_ca_file), **values)

    return cast(CommandT, with_access)


def certificate_options(command: CommandT) -> CommandT:
    """Give `command` the options `tls_cert_file` and `tls_key_file`, of what it serves itself."""
    for name, words in (
        ("tls_key_file", "Its private key, PEM."),
        ("tls_cert_file", "Certificate chain of the page, PEM; it is served by TLS then."),
    ):
        variable = environment_name(name)
        command = click.option(
            f"--{name.replace('_', '-')}",
            metavar="FILE",
            type=click.Path(path_type=Path),
            envvar=variable,
            help=f"{words}  [{variable}]",
        )(command)
    return command
