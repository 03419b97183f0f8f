"""The file for HAProxy 2.6 or newer: given by a `-f` of its own, beside one with `global`.

The model's name picks the backend of that name, so the frontends are the same whatever is served.
One backend checks that each node takes connections, and those of the models follow it: else each
node would be checked once for every model.

A request that cannot be connected goes to another node whatever its size; one that is answered by
404, 503 or nothing does so where it fits into HAProxy's buffer (tune.bufsize, 16 KB by default).
"""

from collections.abc import Iterator
from typing import Final

from reconciler.ingress.proxy import (
    CONNECT_SECONDS,
    OLD_ROUTES_SECONDS,
    TRIES,
    UNKNOWN_MODEL,
    Frontend,
    find_hosts,
    render_head,
)
from reconciler.ingress.routes import Routes, Server

_NOT_FOUND_CODE: Final = 5
_HEADERS_SECONDS: Final = 10
_MODEL: Final = "var(txn.tfs_model)"


def render_haproxy(routes: Routes, frontend: Frontend) -> str:
    """Return the text of the file."""
    parts = [
        render_head(routes),
        _defaults(frontend),
        _rest(frontend),
        _grpc(routes, frontend),
        _UNKNOWN,
        _nodes(routes),
        *(_backends(model, servers) for model, servers in routes.items()),
    ]
    return "\n".join(parts)


def _defaults(frontend: Frontend) -> str:
    answer_ms = round(frontend.answer_seconds * 1000)
    return f"""\
defaults tfs
    mode http
    balance leastconn
    # A reload must not cut off a request that is on its way on an idle connection.
    option idle-close-on-response
    option redispatch 1
    retries {TRIES - 1}
    retry-on conn-failure empty-response 404 503
    timeout connect {CONNECT_SECONDS}s
    timeout check {CONNECT_SECONDS}s
    timeout queue {CONNECT_SECONDS}s
    timeout server {answer_ms}ms
    # Longer than the server's, so that a caller is told of a node that does not answer.
    timeout client {answer_ms + 10_000}ms
    timeout http-request {_HEADERS_SECONDS}s
    # An idle connection of an old process still has its old routes.
    timeout http-keep-alive {OLD_ROUTES_SECONDS}s
    default-server init-addr last,libc,none
"""


def _rest(frontend: Frontend) -> str:
    return f"""\
frontend tfs_rest from tfs
    bind {frontend.rest}
    # Only a request that is here as a whole can be offered to a second node.
    option http-buffer-request
    http-request set-var(txn.tfs_model) path,field(4,/),field(1,:) if {{ path_beg /v1/models/ }}
    use_backend tfs_rest:%[{_MODEL}] if {{ {_MODEL} -m found }}
    default_backend tfs_rest
"""


def _grpc(routes: Routes, frontend: Frontend) -> str:
    lines = [
        "frontend tfs_grpc from tfs",
        f"    bind {frontend.grpc} proto h2",
        "    http-request set-var(txn.tfs_model) req.hdr(model) if { req.hdr(model) -m found }",
        *_read_host(routes, frontend),
        f"    use_backend tfs_grpc:%[{_MODEL}] if {{ {_MODEL} -m found }}",
        "    default_backend tfs_grpc",
    ]
    return "\n".join(lines) + "\n"


def _read_host(routes: Routes, frontend: Frontend) -> Iterator[str]:
    hosts = find_hosts(routes, frontend.domain)
    if not hosts:
        return
    yield "    http-request set-var(txn.tfs_host) req.hdr(host),host_only"
    # In this order a header wins over the host, and a name in lower case is what it says.
    suffix = f".{frontend.domain}".lower()
    unnamed, named = f"!{{ {_MODEL} -m found }}", f"{{ var(txn.tfs_host) -m end {suffix} }}"
    odd = {host: model for host, model in hosts.items() if model != model.lower()}
    for host, model in odd.items():
        set_model = f"http-request set-var(txn.tfs_model) str({model})"
        yield f"    {set_model} if {unnamed} {{ var(txn.tfs_host) -m str {host} }}"
    take = "regsub(" + suffix.replace(".", "[.]") + "$,)"
    yield f"    http-request set-var(txn.tfs_model) var(txn.tfs_host),{take} if {unnamed} {named}"


_UNKNOWN: Final = f"""\
backend tfs_rest from tfs
    http-request return status 404 content-type application/json string '{{"error": "{UNKNOWN_MODEL}"}}'

backend tfs_grpc from tfs
    http-request return status 200 hdr grpc-status {_NOT_FOUND_CODE} hdr grpc-message "{UNKNOWN_MODEL}"
    http-after-response set-header content-type application/grpc
"""  # noqa: E501 - a line of HAProxy's config cannot be broken


def _nodes(routes: Routes) -> str:
    lines = ["backend tfs_nodes from tfs"]
    for item in sorted({server for servers in routes.values() for server in servers}):
        for kind, address in (("rest", item.rest), ("grpc", item.grpc)):
            lines.append(f"    server {item.node}:{kind} {address} check inter 1s fall 2 rise 1")
    return "\n".join(lines) + "\n"


def _backends(model: str, servers: tuple[Server, ...]) -> str:
    lines = [f"backend tfs_rest:{model} from tfs"]
    lines += [f"    server {item.node} {item.rest} {_track(item, 'rest')}" for item in servers]
    lines += ["", f"backend tfs_grpc:{model} from tfs"]
    lines += [
        f"    server {item.node} {item.grpc} proto h2 {_track(item, 'grpc')}" for item in servers
    ]
    return "\n".join(lines) + "\n"


def _track(server: Server, kind: str) -> str:
    return f"track tfs_nodes/{server.node}:{kind}"
