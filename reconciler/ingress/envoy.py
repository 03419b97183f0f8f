"""The bootstrap file for Envoy, in YAML (of which JSON is a part).

All is static: a new file is taken by a hot restart or by a new process, not by a signal. A request
is offered to another node where it fits into Envoy's buffer (1 MiB by default).
"""

import json
from collections.abc import Mapping
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
from reconciler.status.report import Json

_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"
_DRAWS: Final = 32
"""A retry draws a node by chance, and again while that one was tried already. Of two nodes three
draws find the dead one again once in eight times, and the caller gets its error."""
_RETRIES: Final[Mapping[str, str]] = {
    "rest": "connect-failure,refused-stream,reset,retriable-status-codes",
    "grpc": "connect-failure,refused-stream,reset,unavailable",
}


def render_envoy(routes: Routes, frontend: Frontend) -> str:
    """Return the text of the file."""
    rest = [*_rest_routes(routes, frontend), _refusal(json.dumps({"error": UNKNOWN_MODEL}))]
    # Envoy says it in the words of gRPC where gRPC is spoken: a 404 becomes UNIMPLEMENTED.
    grpc = [*_grpc_routes(routes, frontend), _refusal(UNKNOWN_MODEL)]
    document = {
        "static_resources": {
            "listeners": [
                _listener("tfs_rest", frontend.rest, rest, {}),
                _listener("tfs_grpc", frontend.grpc, grpc, _GRPC_CONNECTIONS),
            ],
            "clusters": [
                _cluster(f"tfs_{kind}:{model}", kind, servers)
                for model, servers in routes.items()
                for kind in ("rest", "grpc")
            ],
        }
    }
    return f"{render_head(routes)}\n{json.dumps(document, indent=1)}\n"


_GRPC_CONNECTIONS: Final[Json] = {
    "codec_type": "HTTP2",
    "strip_any_host_port": True,
    "common_http_protocol_options": {"max_connection_duration": f"{OLD_ROUTES_SECONDS}s"},
}


def _rest_routes(routes: Routes, frontend: Frontend) -> list[Json]:
    found = []
    for model in routes:
        path = f"/v1/models/{model}"
        for match in ({"path": path}, {"prefix": f"{path}/"}, {"prefix": f"{path}:"}):
            found.append({"match": match, "route": _action("rest", model, frontend)})
    return found


def _grpc_routes(routes: Routes, frontend: Frontend) -> list[Json]:
    by_header = [("model", {"exact": model}, model) for model in routes]
    by_host = [
        (":authority", {"exact": host, "ignore_case": True}, model)
        for host, model in find_hosts(routes, frontend.domain).items()
    ]
    return [
        {
            "match": {"prefix": "/", "headers": [{"name": header, "string_match": value}]},
            "route": _action("grpc", model, frontend),
        }
        for header, value, model in (*by_header, *by_host)
    ]


def _action(kind: str, model: str, frontend: Frontend) -> Json:
    retry_policy: Json = {
        "retry_on": _RETRIES[kind],
        "num_retries": TRIES - 1,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": _DRAWS,
    }
    if kind == "rest":
        retry_policy["retriable_status_codes"] = [404, 503]
    timeout = f"{frontend.answer_seconds:.3f}s"
    return {"cluster": f"tfs_{kind}:{model}", "timeout": timeout, "retry_policy": retry_policy}


def _refusal(text: str) -> Json:
    header = {"key": "content-type", "value": "application/json"}
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 404, "body": {"inline_string": text}},
        "response_headers_to_add": [
            {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
    }


def _listener(name: str, address: str, routes: list[Json], more: Json) -> Json:
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        **more,
        "route_config": {
            "name": name,
            "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}],
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
            }
        ],
    }
    network_filter = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager,
    }
    return {
        "name": name,
        "address": _socket(address),
        "filter_chains": [{"filters": [network_filter]}],
    }


def _cluster(name: str, kind: str, servers: tuple[Server, ...]) -> Json:
    addresses = [item.rest if kind == "rest" else item.grpc for item in servers]
    endpoints = [{"endpoint": {"address": _socket(address)}} for address in addresses]
    http2 = {
        "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "outlier_detection": {
            "consecutive_gateway_failure": 3,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "base_ejection_time": "2s",
            "max_ejection_percent": 50,
        },
        **({"typed_extension_protocol_options": {options: http2}} if kind == "grpc" else {}),
    }


def _socket(address: str) -> Json:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
