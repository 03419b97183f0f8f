"""The file for nginx 1.22 or newer, to be included in its `http` block.

REST goes by one location a model, gRPC by a map from the `model` header or the host to an upstream.
nginx compares neither map keys nor upstream names by case, so upstreams are numbered, and models
that differ by case alone are told apart by expressions.

What a reload must not lose:

- A worker that has been told to go closes idle connections at once, also one on which a request is
  on its way (keepalive_min_timeout is the cure from 1.27.4 on). So REST connections serve one
  request each.
- An HTTP/2 connection that is never idle stays with its old worker, and with that one's routes.
  So it is asked to go after a few seconds, which clients of gRPC do unnoticed.
"""

import re
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

_MAX_BODY: Final = "256m"
"""nginx keeps a request's body, to offer it to the next node, and by itself takes 1 MB."""
_MAX_KEY_CHARACTERS: Final = 40
"""A longer key of a map does not fit nginx's default map_hash_bucket_size."""
_NOT_FOUND_CODE: Final = 5
_NEXT: Final = "error timeout http_404 http_503 non_idempotent"


def render_nginx(routes: Routes, frontend: Frontend) -> str:
    """Return the text of the file."""
    numbers = {model: number for number, model in enumerate(routes)}
    parts = [
        render_head(routes),
        *(_upstreams(model, numbers[model], routes[model]) for model in routes),
        _maps(numbers, frontend),
        _rest(numbers, frontend),
        _grpc(frontend),
    ]
    return "\n".join(parts)


def _upstreams(model: str, number: int, servers: tuple[Server, ...]) -> str:
    lines = [f"# {model}"]
    for kind in ("rest", "grpc"):
        lines.append(f"upstream tfs_{kind}_{number} {{")
        lines.append("    least_conn;")
        lines += [
            f"    server {item.rest if kind == 'rest' else item.grpc} max_fails=3 fail_timeout=2s;"
            for item in servers
        ]
        lines += ["    keepalive 32;", "}"]
    return "\n".join(lines) + "\n"


def _maps(numbers: dict[str, int], frontend: Frontend) -> str:
    hosts = find_hosts(numbers, frontend.domain)
    keys = [
        *((f"model:{model}", numbers[model]) for model in numbers),
        *((f"host:{host}", numbers[model]) for host, model in hosts.items()),
    ]
    lower = [key.lower() for key, _ in keys]
    lines = [
        # One key that says where it came from: a model may be called as another one's host.
        'map $http_model $tfs_asked {\n    default "model:$http_model";\n    "" "host:$host";\n}',
        'map $tfs_asked $tfs_upstream {\n    default "";',
    ]
    for key, number in keys:
        is_plain = len(key) <= _MAX_KEY_CHARACTERS and lower.count(key.lower()) == 1
        text = key if is_plain else f"~^{re.escape(key)}$"
        lines.append(f'    "{text}" tfs_grpc_{number};')
    return "\n".join([*lines, "}"]) + "\n"


def _rest(numbers: dict[str, int], frontend: Frontend) -> str:
    lines = [
        "server {",
        f"    listen {frontend.rest};",
        "    keepalive_timeout 0;  # else a reload cuts off requests that are on their way",
        f"    client_max_body_size {_MAX_BODY};",
        "    proxy_http_version 1.1;",
        '    proxy_set_header Connection "";',
        "    proxy_set_header Host $http_host;",
        *_limits("proxy", frontend),
    ]
    for model, number in numbers.items():
        path = f"/v1/models/{model}"
        for match in (f"= {path}", f"^~ {path}/", f"^~ {path}:"):
            lines.append(f"    location {match} {{ proxy_pass http://tfs_rest_{number}; }}")
    lines += [
        "    location / {",
        "        default_type application/json;",
        f'        return 404 \'{{"error": "{UNKNOWN_MODEL}"}}\\n\';',
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _grpc(frontend: Frontend) -> str:
    lines = [
        "server {",
        f"    listen {frontend.grpc} http2;",
        f"    keepalive_time {OLD_ROUTES_SECONDS}s;",
        f"    client_max_body_size {_MAX_BODY};",
        *_limits("grpc", frontend),
        "    location / {",
        '        if ($tfs_upstream = "") {',
        f"            add_header grpc-status {_NOT_FOUND_CODE} always;",
        f'            add_header grpc-message "{UNKNOWN_MODEL}" always;',
        '            return 200 "";',
        "        }",
        "        default_type application/grpc;",
        "        grpc_pass grpc://$tfs_upstream;",
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _limits(module: str, frontend: Frontend) -> Iterator[str]:
    yield f"    {module}_connect_timeout {CONNECT_SECONDS}s;"
    yield f"    {module}_read_timeout {round(frontend.answer_seconds * 1000)}ms;"
    yield f"    {module}_next_upstream {_NEXT};"
    yield f"    {module}_next_upstream_tries {TRIES};"
    # By then a node that took long to answer has not answered at all: that is not tried again.
    yield f"    {module}_next_upstream_timeout {TRIES * CONNECT_SECONDS + 1}s;"
