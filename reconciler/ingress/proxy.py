"""What all three kinds of proxy are told alike: where they listen, and how long they try.

The file that is written for a proxy also says, in comments, where each model's requests go, in a
form that can be read back. So a sidecar that starts anew while a node is silent goes on from what
the proxy does, and needs no file of its own beside the proxy's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from reconciler.ingress.routes import MODEL_NAME, Routes, Server

TRIES: Final = 3
"""How many nodes a request is offered to, the first one included."""
CONNECT_SECONDS: Final = 1
"""How long a node may take to accept a connection: it is in the same network."""
OLD_ROUTES_SECONDS: Final = 5
"""How long a client's connection may go on, busy or idle, once its process of the proxy is an old
one. With the connection goes the process's view of who serves what, so this must be well within
the `drain` for which a node goes on serving what it hands over."""
DEFAULT_REST: Final = "0.0.0.0:8501"
DEFAULT_GRPC: Final = "0.0.0.0:8500"
UNKNOWN_MODEL: Final = "no node serves a model of this name"
"""What a caller is told; without quotes, so that every config can hold it."""

_MARK: Final = "#: "
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?):[0-9]{1,5}")
_NODE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Frontend:
    """How clients reach the proxy."""

    rest: str = DEFAULT_REST
    """`host:port` that it listens on for REST."""
    grpc: str = DEFAULT_GRPC
    """The same for gRPC, without TLS."""
    domain: str | None = None
    """With it, `<model>.<domain>` as the host of a gRPC request names the model, too."""
    answer_seconds: float = 60.0
    """How long a node may take to answer a request."""


def find_hosts(models: Iterable[str], domain: str | None) -> dict[str, str]:
    """Return the host name of each model that has one: host names know no upper case.

    Of two models that differ by that alone, the one in lower case has it.
    """
    if domain is None:
        return {}
    found: dict[str, list[str]] = {}
    for model in models:
        found.setdefault(model.lower(), []).append(model)
    return {
        f"{lower}.{domain.lower()}": lower if lower in same else same[0]
        for lower, same in sorted(found.items())
        if lower in same or len(same) == 1
    }


def render_head(routes: Routes) -> str:
    """Return the comments at the top of a proxy's file."""
    lines = [
        "# Written by `reconciler ingress`, which writes it again whenever a model comes or goes.",
        "# The lines after this one say where each model is served: model, node, gRPC, REST.",
    ]
    for model, servers in routes.items():
        lines += [f"{_MARK}{model} {item.node} {item.grpc} {item.rest}" for item in servers]
    return "\n".join(lines) + "\n"


def read_head(text: str) -> Routes:
    """Return the routes that a file says, as far as it does."""
    found: dict[str, list[Server]] = {}
    for line in text.splitlines():
        words = line.removeprefix(_MARK).split(" ") if line.startswith(_MARK) else []
        if len(words) == 4 and MODEL_NAME.fullmatch(words[0]) and is_fit(Server(*words[1:])):
            found.setdefault(words[0], []).append(Server(*words[1:]))
    return {model: tuple(sorted(found[model])) for model in sorted(found)}


def is_fit(server: Server) -> bool:
    """Whether a server's name and addresses are such that they may stand in a proxy's config."""
    has_addresses = is_address(server.grpc) and is_address(server.rest)
    return bool(_NODE.fullmatch(server.node)) and has_addresses


def is_address(text: str) -> bool:
    """Whether a text is `host:port`, and nothing that a config could take for more."""
    return bool(_ADDRESS.fullmatch(text)) and int(text.rpartition(":")[2]) < 65536
