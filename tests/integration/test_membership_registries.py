"""Swarm, DNS and Nomad over real sockets: what is taken from their answers, and what is refused.

No engine and no Nomad runs here; servers answer in their stead with what the APIs' references show
(Docker Engine API, GET /nodes; Nomad HTTP API, GET /v1/nodes).
"""

import gc
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

from reconciler.membership.dns import DnsRegistry, resolve
from reconciler.membership.nomad import NomadRegistry
from reconciler.membership.registry import REFUSED, Registries, RegistryClient, RegistryError
from reconciler.membership.swarm import SwarmRegistry
from reconciler.membership.watch import MembershipWatch
from reconciler.model import Group, Member, Membership, Registry
from reconciler.status.report import NodeReport, render

TOKEN = "b3c9a6f2-nobody-should-see"

Script = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server's script."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.requests.append((self.path, dict(self.headers)))
        with suppress(OSError):  # the client has hung up
            server.script(self)

    def reply(self, content: object, code: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class TcpServer(ThreadingHTTPServer):
    daemon_threads = True


class UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


class Peer:
    """A server whose answers the test writes."""

    def __init__(self, server: Any, script: Script) -> None:
        self.server = server
        self.requests: list[tuple[str, dict[str, str]]] = []
        server.requests, server.script = self.requests, script

    def answers(self, content: object, code: int = 200) -> None:
        self.server.script = lambda handler: handler.reply(content, code)

    def does(self, script: Script) -> None:
        self.server.script = script


@contextmanager
def serve(
    address: tuple[str, int] | Path, script: Script = lambda handler: handler.reply({})
) -> Iterator[Peer]:
    server = (
        UnixServer(str(address), Handler)
        if isinstance(address, Path)
        else TcpServer(address, Handler)
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    with server:
        thread.start()
        try:
            yield Peer(server, script)
        finally:
            server.shutdown()
            thread.join()


def drip(stop: threading.Event) -> Script:
    """Answer with a body that comes a byte at a time and has no end."""

    def script(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    return script


def be_silent(stop: threading.Event) -> Script:
    def script(handler: Handler) -> None:
        stop.wait(60)

    return script


def pour(handler: Handler) -> None:
    """Answer with a body that has no end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(b"[" * 1_000_000)


def promise_too_much(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"[]")


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def ask(client: RegistryClient, membership: Membership) -> list[tuple[str, str | None]]:
    members = await client.list(membership)
    assert all(isinstance(member, Member) for member in members)
    return sorted((member.name, member.address) for member in members)


async def refusal(client: RegistryClient, membership: Membership) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        await client.list(membership)
    assert TOKEN not in f"{caught.value!r} {caught.value.__cause__!r}"
    return caught.value


NONSENSE = [
    pytest.param(b"", id="empty"),
    pytest.param(b"<html>Sign in</html>", id="a page"),
    pytest.param({"nodes": []}, id="an object"),
    pytest.param(None, id="null"),
    pytest.param([3], id="numbers"),
    pytest.param([{"Name": "a"}], id="fields missing"),
    pytest.param(b"[" * 100_000, id="deep"),
    pytest.param(b"\xff\xfe[]", id="no text"),
    pytest.param([{}] * 10_001, id="too many"),
]


# --- Nomad --------------------------------------------------------------------------------

CLASS = Membership(Registry.NOMAD, 'NodeClass == "search" and Datacenter != "dc 2"', 8080)


def nomad_node(name: str, address: str = "10.0.0.1", **changes: object) -> dict[str, object]:
    return {
        "Address": address,
        "CreateIndex": 6,
        "Datacenter": "dc1",
        "Drain": False,
        "Drivers": {"docker": {"Attributes": {}, "Detected": True, "Healthy": True}},
        "ID": "f7476465-4d6e-c0de-26d0-e383c49be941",
        "ModifyIndex": 2526,
        "Name": name,
        "NodeClass": "search",
        "SchedulingEligibility": "eligible",
        "Status": "ready",
        "StatusDescription": "",
        "Version": "1.8.0",
        **changes,
    }


@pytest.fixture
def nomad() -> Iterator[Peer]:
    with serve(("127.0.0.1", 0)) as peer:
        yield peer


def nomad_client(peer: Peer, token_file: Path | None = None) -> NomadRegistry:
    return NomadRegistry(f"http://127.0.0.1:{peer.server.server_port}", token_file)


async def test_nomad_lists_the_clients_that_may_be_given_work(nomad: Peer) -> None:
    nomad.answers(
        [
            nomad_node("b", "fd00::2"),
            nomad_node("a"),
            nomad_node("down", Status="down"),
            nomad_node("cut-off", Status="disconnected"),
            nomad_node("draining", Drain=True),
            nomad_node("ineligible", SchedulingEligibility="ineligible"),
            nomad_node("unknown", ""),
        ]
    )
    assert await ask(nomad_client(nomad), CLASS) == [
        ("a", "10.0.0.1:8080"),
        ("b", "[fd00::2]:8080"),
        ("unknown", None),
    ]
    ((path, headers),) = nomad.requests
    assert path == (
        "/v1/nodes?filter=NodeClass+%3D%3D+%22search%22+and+Datacenter+%21%3D+%22dc+2%22"
    )
    assert "X-Nomad-Token" not in headers


async def test_nomad_is_shown_the_token_as_it_is_now(nomad: Peer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    nomad.answers([nomad_node("a")])
    client = nomad_client(nomad, file)
    for token in (TOKEN, "rotated"):
        file.write_text(f"{token}\n")
        await client.list(CLASS)
    assert [headers["X-Nomad-Token"] for _, headers in nomad.requests] == [TOKEN, "rotated"]


@pytest.mark.parametrize("content", [None, "", " \n", f"{TOKEN}\r\nX: y", f"{TOKEN}ü"])
async def test_nomad_is_not_asked_without_the_token_it_was_to_be_asked_with(
    nomad: Peer, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    error = await refusal(nomad_client(nomad, tmp_path / "token"), CLASS)
    assert error.reason == "RegistryRefused"
    assert "holds no Nomad token" in str(error)
    assert not nomad.requests


@pytest.mark.parametrize(
    ("code", "words", "advice"),
    [
        (403, "Permission denied", "name a token with node:read"),
        (400, "failed to read filter expression: 1:5", "check the filter expression"),
        (500, f"No cluster leader, {TOKEN} \x1b[2J", "500: No cluster leader, *** �[2J"),
        (302, "", "a redirect is not followed"),
    ],
)
async def test_what_nomad_refuses_is_told_in_its_words_without_the_token(
    nomad: Peer, tmp_path: Path, code: int, words: str, advice: str
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    nomad.answers(words.encode(), code)
    error = await refusal(nomad_client(nomad, tmp_path / "token"), CLASS)
    assert error.reason == "RegistryRefused"
    assert str(error).startswith(
        f"Nomad at http://127.0.0.1:{nomad.server.server_port} answered {code}: {words[:7]}"
    )
    assert advice in str(error)


@pytest.mark.parametrize("content", NONSENSE)
async def test_what_is_not_nomads_list_is_refused_in_whole(nomad: Peer, content: object) -> None:
    nomad.answers(content)
    error = await refusal(nomad_client(nomad), CLASS)
    assert (error.reason, str(error)) == (
        "RegistryAnswerInvalid",
        "the answer is not Nomad's list of nodes",
    )


async def test_a_name_that_no_node_can_have_is_told(nomad: Peer) -> None:
    nomad.answers([nomad_node("a"), nomad_node("../b")])
    error = await refusal(nomad_client(nomad), CLASS)
    assert error.reason == "RegistryAnswerInvalid"
    assert "'../b', which no node can be called" in str(error)


async def test_nomads_answer_has_an_end(
    nomad: Peer, monkeypatch: pytest.MonkeyPatch, stop: threading.Event
) -> None:
    monkeypatch.setattr("reconciler.membership.nomad._DEADLINE_SECONDS", 0.3)
    for script in (drip(stop), be_silent(stop)):
        nomad.does(script)
        assert "did not answer within 0.3 s" in str(await refusal(nomad_client(nomad), CLASS))
    monkeypatch.setattr("reconciler.membership.nomad._DEADLINE_SECONDS", 60)
    monkeypatch.setattr("reconciler.membership.nomad._MAX_BODY_BYTES", 10_000_000)
    nomad.does(pour)
    assert "which no list of nodes has" in str(await refusal(nomad_client(nomad), CLASS))
    nomad.does(promise_too_much)
    assert "IncompleteRead" in str(await refusal(nomad_client(nomad), CLASS))


async def test_nomad_that_is_not_there_is_told(free_port: int) -> None:
    error = await refusal(NomadRegistry(f"http://127.0.0.1:{free_port}", None), CLASS)
    assert error.reason == "RegistryUnreachable"
    assert f"http://127.0.0.1:{free_port} cannot be asked" in str(error)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:4646", "ftp://x", f"http://me:{TOKEN}@x", "http://x/v1", "http://x:99999", "", "["],
)
async def test_an_address_that_is_none_of_nomad_is_told(address: str) -> None:
    error = await refusal(NomadRegistry(address, None), CLASS)
    assert "RECONCILER_NOMAD_ADDRESS is not a plain URL" in str(error)


# --- Swarm --------------------------------------------------------------------------------

LABEL = Membership(Registry.SWARM, "group=search", 8080)


def swarm_node(
    name: str, address: str = "10.0.0.1", label: str = "search", **changes: object
) -> dict[str, Any]:
    return {
        "ID": "24ifsmvkjbyhk",
        "Version": {"Index": 8},
        "CreatedAt": "2016-08-18T10:44:24.496525531Z",
        "UpdatedAt": "2017-08-09T07:09:37.632105588Z",
        "Spec": {"Role": "worker", "Availability": "active", "Labels": {"group": label}},
        "Description": {
            "Hostname": name,
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 4000000000, "MemoryBytes": 8272408576},
            "Engine": {"EngineVersion": "27.3.1", "Labels": {"foo": "bar"}},
        },
        "Status": {"State": "ready", "Addr": address},
        **changes,
    }


def with_spec(node: dict[str, Any], **changes: object) -> dict[str, Any]:
    return node | {"Spec": node["Spec"] | changes}


class Swarm(Peer):
    """A Docker engine's socket: the version is asked first, then the nodes."""

    def lists(self, nodes: object, code: int = 200) -> None:
        self.after_version(lambda handler: handler.reply(nodes, code))

    def after_version(self, script: Script) -> None:
        def choose(handler: Handler) -> None:
            if handler.path == "/version":
                handler.reply({"Version": "27.3.1", "ApiVersion": "1.47"})
            else:
                script(handler)

        self.does(choose)


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[Swarm]:
    with serve(tmp_path / "docker.sock") as peer:
        yield Swarm(peer.server, lambda handler: handler.reply({}))


@pytest.fixture
def swarm_client(tmp_path: Path, swarm: Swarm) -> SwarmRegistry:
    return SwarmRegistry(f"unix://{tmp_path}/docker.sock")


async def test_swarm_lists_the_nodes_with_the_label_that_take_tasks(
    swarm: Swarm, swarm_client: SwarmRegistry
) -> None:
    swarm.lists(
        [
            swarm_node("b", "10.0.0.2"),
            swarm_node("a"),
            swarm_node("v6", "fd00::6"),
            swarm_node("elsewhere", label="ads"),
            with_spec(swarm_node("plain"), Labels={}),
            with_spec(swarm_node("older"), Labels=None),
            with_spec(swarm_node("drained"), Availability="drain"),
            with_spec(swarm_node("paused"), Availability="pause"),
            swarm_node("down", Status={"State": "down", "Addr": "10.0.0.9"}),
        ]
    )
    assert await ask(swarm_client, LABEL) == [
        ("a", "10.0.0.1:8080"),
        ("b", "10.0.0.2:8080"),
        ("v6", "[fd00::6]:8080"),
    ]
    assert swarm.requests[-1][0] == "/v1.47/nodes"


@pytest.mark.parametrize(
    ("status", "manager", "expected"),
    [
        ("0.0.0.0", "10.0.0.46:2377", "10.0.0.46:8080"),
        ("127.0.0.1", "10.0.0.46:2377", "10.0.0.46:8080"),
        ("10.0.0.9", "10.0.0.46:2377", "10.0.0.46:8080"),
        ("0.0.0.0", "[fd00::6]:2377", "[fd00::6]:8080"),
        ("10.0.0.9", "0.0.0.0:2377", "10.0.0.9:8080"),
        ("10.0.0.9", None, "10.0.0.9:8080"),
        ("0.0.0.0", None, None),
    ],
)
async def test_a_manager_is_where_it_says_it_is(
    swarm: Swarm,
    swarm_client: SwarmRegistry,
    status: str,
    manager: str | None,
    expected: str | None,
) -> None:
    said = {"Leader": True, "Reachability": "reachable", "Addr": manager} if manager else None
    swarm.lists([swarm_node("a", status, ManagerStatus=said)])
    assert await ask(swarm_client, LABEL) == [("a", expected)]


async def test_swarm_is_asked_over_tcp_too() -> None:
    with serve(("127.0.0.1", 0)) as peer:
        Swarm(peer.server, pour).lists([swarm_node("a")])
        client = SwarmRegistry(f"tcp://127.0.0.1:{peer.server.server_port}")
        assert await ask(client, LABEL) == [("a", "10.0.0.1:8080")]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (503, 'This node is not a swarm manager. Use "docker swarm init".'),
        (403, "authorization denied by plugin"),
    ],
)
async def test_what_docker_refuses_is_told_in_its_words(
    swarm: Swarm, swarm_client: SwarmRegistry, code: int, words: str
) -> None:
    swarm.lists({"message": words}, code)
    error = await refusal(swarm_client, LABEL)
    assert error.reason == "RegistryRefused"
    assert str(error).startswith(f"Docker answered {code}: {words}; let RECONCILER_DOCKER_HOST")
    swarm.answers({"message": words}, code)
    assert str(await refusal(swarm_client, LABEL)) == str(error)


@pytest.mark.parametrize("content", NONSENSE)
async def test_what_is_not_dockers_list_is_refused_in_whole(
    swarm: Swarm, swarm_client: SwarmRegistry, content: object
) -> None:
    swarm.lists(content)
    error = await refusal(swarm_client, LABEL)
    assert (error.reason, str(error)) == (
        "RegistryAnswerInvalid",
        "the answer is not Docker's list of nodes",
    )
    swarm.answers(content)
    assert (await refusal(swarm_client, LABEL)).reason == "RegistryAnswerInvalid"
    swarm.lists(content, 500)
    assert (await refusal(swarm_client, LABEL)).reason in ("RegistryAnswerInvalid", REFUSED)


async def test_dockers_answer_has_an_end(
    swarm: Swarm,
    swarm_client: SwarmRegistry,
    monkeypatch: pytest.MonkeyPatch,
    stop: threading.Event,
) -> None:
    monkeypatch.setattr("reconciler.membership.swarm._DEADLINE_SECONDS", 0.3)
    for script in (drip(stop), be_silent(stop)):
        for install in (swarm.does, swarm.after_version):
            install(script)
            assert "did not answer within 0.3 s" in str(await refusal(swarm_client, LABEL))
    monkeypatch.setattr("reconciler.membership.swarm._DEADLINE_SECONDS", 60)
    monkeypatch.setattr("reconciler.membership.swarm._MAX_BODY_BYTES", 10_000_000)
    for install in (swarm.does, swarm.after_version):
        install(pour)
        assert "which no list of nodes has" in str(await refusal(swarm_client, LABEL))
    swarm.after_version(promise_too_much)
    assert "Docker cannot be asked" in str(await refusal(swarm_client, LABEL))


async def test_docker_sends_nobody_elsewhere(swarm: Swarm, swarm_client: SwarmRegistry) -> None:
    def redirect(handler: Handler) -> None:
        handler.send_response(307)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    swarm.after_version(redirect)
    assert (await refusal(swarm_client, LABEL)).reason == "RegistryAnswerInvalid"
    assert "/elsewhere" not in [path for path, _ in swarm.requests]


async def test_a_socket_that_is_not_there_is_told(tmp_path: Path) -> None:
    client = SwarmRegistry(f"unix://{tmp_path}/away.sock")
    error = await refusal(client, LABEL)
    assert error.reason == "RegistryUnreachable"
    assert str(error) == (
        "Docker cannot be asked: No such file or directory; is its socket mounted, and"
        " RECONCILER_DOCKER_HOST right?"
    )


async def test_while_docker_is_away_no_file_stays_open(
    tmp_path: Path, without_garbage_collection: None
) -> None:
    client = SwarmRegistry(f"unix://{tmp_path}/away.sock")
    await refusal(client, LABEL)
    before = set(Path("/proc/self/fd").iterdir())
    for _ in range(10):
        await refusal(client, LABEL)
    assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 1  # the listing itself


@pytest.mark.parametrize(
    "host", ["", "/var/run/docker.sock", "ssh://me@x", "http+unix://x", "npipe:x"]
)
async def test_an_address_that_is_none_of_docker_is_told(host: str) -> None:
    error = await refusal(SwarmRegistry(host), LABEL)
    assert "RECONCILER_DOCKER_HOST is not an address of Docker" in str(error)


# --- DNS ----------------------------------------------------------------------------------


def status_of(node: str, instance: str = "1") -> Script:
    report = NodeReport(
        node=node,
        group=None,
        program_version="0.1.0",
        started_at_seconds=900.0,
        generated_at_seconds=1000.0,
        ready=False,
        summary="",
        instance=instance,
    )
    return lambda handler: handler.reply(render(report))


@pytest.fixture
def free_port() -> int:
    """A port that is free on 127.0.0.1 to 127.0.0.5."""
    for _ in range(100):
        with ExitStack() as stack, suppress(OSError):
            port = 0
            for last in range(1, 6):
                listener = stack.enter_context(socket.socket())
                listener.bind((f"127.0.0.{last}", port))
                port = int(listener.getsockname()[1])
            return port
    raise AssertionError("no port is free")


def loopback(*lasts: int) -> DnsRegistry:
    return DnsRegistry(lambda _host: [f"127.0.0.{last}" for last in lasts])


@contextmanager
def nodes(port: int, *scripts: Script) -> Iterator[None]:
    """Run one status endpoint after the other on 127.0.0.1, 127.0.0.2, …."""
    with ExitStack() as stack:
        for last, script in enumerate(scripts, 1):
            stack.enter_context(serve((f"127.0.0.{last}", port), script))
        yield


async def test_each_address_is_asked_who_it_is(free_port: int) -> None:
    with nodes(free_port, *(status_of(name) for name in "edcba")):
        found = await ask(loopback(5, 3, 1, 2, 4, 3), Membership(Registry.DNS, "x", free_port))
    assert found == [
        ("a", f"127.0.0.5:{free_port}"),
        ("b", f"127.0.0.4:{free_port}"),
        ("c", f"127.0.0.3:{free_port}"),
        ("d", f"127.0.0.2:{free_port}"),
        ("e", f"127.0.0.1:{free_port}"),
    ]


async def test_who_does_not_answer_as_a_node_is_not_listed(
    free_port: int, monkeypatch: pytest.MonkeyPatch, stop: threading.Event
) -> None:
    monkeypatch.setattr("reconciler.membership.dns._STATUS_DEADLINE_SECONDS", 0.5)
    starting: Script = lambda handler: handler.reply({"error": "no report yet"}, 503)  # noqa: E731
    with nodes(free_port, status_of("a"), be_silent(stop), drip(stop), starting):
        found = await ask(loopback(1, 2, 3, 4, 5), Membership(Registry.DNS, "x", free_port))
    assert found == [("a", f"127.0.0.1:{free_port}")]


@pytest.mark.parametrize(
    "content", [b"<html>", [], 3, {"node": 3}, {"node": "../a"}, {"name": "a"}, b"[" * 100_000]
)
async def test_an_address_that_answers_nonsense_is_not_listed(
    free_port: int, content: object
) -> None:
    with nodes(free_port, lambda handler: handler.reply(content), status_of("b")):
        found = await ask(loopback(1, 2), Membership(Registry.DNS, "x", free_port))
    assert found == [("b", f"127.0.0.2:{free_port}")]


async def test_one_agent_at_two_addresses_is_one_node_and_two_of_one_name_are_two(
    free_port: int,
) -> None:
    with nodes(free_port, status_of("a"), status_of("a"), status_of("b"), status_of("b", "2")):
        found = await ask(loopback(1, 2, 3, 4), Membership(Registry.DNS, "x", free_port))
    assert found == [
        ("a", f"127.0.0.1:{free_port}"),
        ("b", f"127.0.0.3:{free_port}"),
        ("b", f"127.0.0.4:{free_port}"),
    ]


async def test_where_nobody_answers_nothing_is_said_about_anybody(free_port: int) -> None:
    error = await refusal(loopback(1, 2), Membership(Registry.DNS, "tasks.x", free_port))
    assert error.reason == "RegistryUnreachable"
    assert str(error).startswith(
        f"tasks.x has 2 addresses, but none answers as a node on port {free_port} (the first:"
        f" http://127.0.0.1:{free_port}/status cannot be asked"
    )


async def test_the_systems_resolver_is_asked(free_port: int) -> None:
    assert "127.0.0.1" in resolve("localhost")
    with nodes(free_port, status_of("a")):
        found = await ask(DnsRegistry(), Membership(Registry.DNS, "localhost", free_port))
    assert found == [("a", f"127.0.0.1:{free_port}")]


@pytest.mark.parametrize("host", ["tasks.agent.invalid", "a" * 64 + ".invalid", "a..b"])
async def test_a_name_without_addresses_is_told(host: str) -> None:
    error = await refusal(DnsRegistry(), Membership(Registry.DNS, host, 8080))
    assert error.reason == "RegistryUnreachable"
    assert f"DNS has no address for {host}" in str(error)
    assert "no address" in str(await refusal(loopback(), Membership(Registry.DNS, host, 8080)))


async def test_a_resolver_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, stop: threading.Event
) -> None:
    monkeypatch.setattr("reconciler.membership.dns._RESOLVE_DEADLINE_SECONDS", 0.05)
    hanging = DnsRegistry(lambda _host: [str(stop.wait(60))])
    error = await refusal(hanging, Membership(Registry.DNS, "tasks.x", 8080))
    assert str(error) == "DNS did not answer for tasks.x within 0.05 s"


# --- all ----------------------------------------------------------------------------------


async def test_each_kind_has_its_client(tmp_path: Path) -> None:
    with serve(tmp_path / "docker.sock") as docker, serve(("127.0.0.1", 0)) as nomad:
        Swarm(docker.server, pour).lists([swarm_node("s")])
        nomad.answers([nomad_node("n")])
        (tmp_path / "token").write_text(TOKEN)
        registries = Registries(
            docker_host=f"unix://{tmp_path}/docker.sock",
            nomad_address=f"http://127.0.0.1:{nomad.server.server_port}",
            nomad_token_file=tmp_path / "token",
        )
        assert [name for name, _ in await ask(registries.open(Registry.SWARM), LABEL)] == ["s"]
        assert [name for name, _ in await ask(registries.open(Registry.NOMAD), CLASS)] == ["n"]
        assert nomad.requests[0][1]["X-Nomad-Token"] == TOKEN
    assert isinstance(registries.open(Registry.DNS), DnsRegistry)


def test_without_the_docker_package_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "reconciler.membership.swarm", None)
    registries = Registries(docker_host="", nomad_address="", nomad_token_file=None)
    with pytest.raises(RegistryError, match=r'install "tfserving-reconciler\[docker\]"'):
        registries.open(Registry.SWARM)


async def test_a_group_is_kept_through_an_outage_of_its_registry_and_a_restart(
    nomad: Peer, tmp_path: Path
) -> None:
    seconds = 1000.0

    def start() -> MembershipWatch:
        registries = Registries(
            docker_host="",
            nomad_address=f"http://127.0.0.1:{nomad.server.server_port}",
            nomad_token_file=None,
        )
        return MembershipWatch(
            registries, state_file=tmp_path / "members.json", clock=lambda: seconds
        )

    group = Group("search", "groups/search.yaml", (), membership=CLASS)
    everybody = {"search": (Member("a", "10.0.0.1:8080"), Member("b", "10.0.0.2:8080"))}
    nomad.answers([nomad_node("b", "10.0.0.2"), nomad_node("a")])
    watch = start()
    watch.want([group], member_timeout_seconds=60)
    assert await watch.refresh()
    assert watch.members == everybody
    nomad.answers([], 500)
    watch = start()
    watch.want([group], member_timeout_seconds=60)
    assert await watch.refresh()
    assert watch.members == everybody
    assert watch.troubles["search"].reason == "RegistryRefused"
    nomad.answers([nomad_node("a")])
    for _ in range(2):
        seconds += 60
        assert watch.members == everybody
        await watch.refresh()
    assert watch.members == {"search": everybody["search"][:1]}
    assert not watch.troubles
