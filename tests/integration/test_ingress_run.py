"""`reconciler ingress run` beside real proxies: a model moves between nodes, and nobody notices."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest

from reconciler.errors import GitError
from reconciler.ingress.nodes import CloneNodes
from reconciler.ingress.proxy import read_head
from reconciler.serving.protocol.methods import PREDICT
from tests.callers import asking
from tests.gitserver import ConfigRemote, git
from tests.modelservers import ModelServer, make_request, run_pair
from tests.proxies import Proxy, wait_for
from tests.statuses import StatusNode, answering, leaving, outcome

pytest.importorskip(
    "tensorflow", reason="real predictions need TensorFlow: pip install '.[tensorflow]'"
)

MOVES = 2


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ModelServer, ModelServer]]:
    with run_pair(tmp_path_factory.mktemp("nodes")) as pair:
        yield pair


@dataclass
class Caller:
    """Asks without pause and keeps what came back."""

    proxy: Proxy
    answers: list[float] = field(default_factory=list)
    """What each answer adds, in the order in which they came."""
    failures: list[str] = field(default_factory=list)

    def ask_rest(self, stop: threading.Event) -> None:
        url = f"http://127.0.0.1:{self.proxy.rest_port}/v1/models/ranker:predict"
        with httpx.Client(timeout=20, trust_env=False) as client:
            while not stop.is_set():
                try:
                    answer = client.post(url, json={"instances": [1.0]})
                    answer.raise_for_status()
                    self.answers.append(answer.json()["predictions"][0])
                except httpx.HTTPError as error:
                    self.failures.append(f"{error!r}")

    def ask_grpc(self, stop: threading.Event) -> None:
        target, options = f"127.0.0.1:{self.proxy.grpc_port}", [("grpc.enable_http_proxy", 0)]
        request = make_request("ranker")
        with grpc.insecure_channel(target, options=options) as channel:
            call = channel.unary_unary(
                PREDICT.path,
                request_serializer=PREDICT.request.SerializeToString,
                response_deserializer=PREDICT.response.FromString,
            )

            def ask() -> grpc.Future:
                return call.future(request, timeout=20, metadata=[("model", "ranker")])

            def keep(future: grpc.Future, *, is_second: bool = False) -> None:
                try:
                    self.answers.append(future.result().outputs["y"].float_val[0])
                except grpc.RpcError as error:
                    # gRPC asks again once by itself. What meets a second connection that is on its
                    # way out, on an overloaded machine, is for a client's retry policy.
                    if "GOAWAY received" in str(error) and not is_second:
                        keep(ask(), is_second=True)
                    else:
                        self.failures.append(f"{error!r}")

            # Several at a time, so that the connection is hardly ever idle.
            flying = []
            while not stop.is_set():
                flying.append(ask())
                if len(flying) == 8:
                    keep(flying.pop(0))
            for future in flying:
                keep(future)


@contextmanager
def idling(proxy: Proxy) -> Iterator[Callable[[], float]]:
    """Have a connection to the proxy, and return what asks on it again."""
    with httpx.Client(timeout=20, trust_env=False) as client:

        def ask() -> float:
            url = f"http://127.0.0.1:{proxy.rest_port}/v1/models/ranker:predict"
            return float(client.post(url, json={"instances": [1.0]}).json()["predictions"][0])

        ask()
        yield ask


@contextmanager
def sidecar(
    proxy: Proxy, folder: Path, reload_command: str | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `reconciler ingress run` on the clone in `folder` during the block."""
    command = [
        *(sys.executable, "-m", "reconciler.cli.main", "ingress", "run", "--for", proxy.kind),
        *("-C", str(folder), "--out", str(proxy.file), "--check", proxy.check_command),
        *("--reload", reload_command or proxy.reload_command),
        *("--listen-rest", proxy.frontend.rest, "--listen-grpc", proxy.frontend.grpc),
    ]
    with (proxy.folder / "sidecar.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def commit_group(remote: ConfigRemote, *members: tuple[StatusNode, ModelServer]) -> None:
    nodes = [
        {"name": status.name, "address": status.address, "grpc": server.grpc, "rest": server.rest}
        for status, server in ((status, model.as_server()) for status, model in members)
    ]
    remote.commit({"groups/search.yaml": json.dumps({"nodes": nodes})}, "Say where nodes are")


@contextmanager
def renewed(proxy: Proxy) -> Iterator[None]:
    """Wait at the end of the block until all processes of the proxy are others than before it."""
    before = proxy.workers
    yield
    wait_for(lambda: not before & proxy.workers, "the end of the proxy's old processes")


def placed(proxy: Proxy) -> list[str]:
    """Return the nodes that the proxy's file sends `ranker` to."""
    return [server.node for server in read_head(proxy.file.read_text()).get("ranker", ())]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_no_request_fails_while_a_model_moves_from_node_to_node_and_back(
    kind: str, nodes: tuple[ModelServer, ModelServer], tmp_path: Path
) -> None:
    first, second = nodes
    first.serve("ranker")
    second.serve()
    proxy = Proxy(kind, tmp_path / "proxy")
    remote = ConfigRemote(tmp_path)
    status_1, status_2 = StatusNode("node-1"), StatusNode("node-2")
    status_1.say(outcome("ranker"))
    rest, rpc = Caller(proxy), Caller(proxy)
    with ExitStack() as stack:
        stack.enter_context(answering(status_1))
        stack.enter_context(answering(status_2))
        commit_group(remote, (status_1, first), (status_2, second))
        stack.callback(proxy.stop)
        proxy.start({"ranker": (first.as_server(),)})
        log = proxy.folder / "sidecar.log"
        with renewed(proxy):  # for nobody knows which file the proxy has read
            process = stack.enter_context(sidecar(proxy, remote.work))
        with asking(rest.ask_rest, rpc.ask_grpc):
            old, new, old_status, new_status = first, second, status_1, status_2
            for _ in range(MOVES):
                with renewed(proxy):
                    old_status.say(removals=(leaving("ranker", "HandingOver"),))
                    new.serve("ranker")
                    new_status.say(outcome("ranker", serving=new.number))
                assert placed(proxy) == ["node-1", "node-2"]
                # An agent goes on serving for `drain`, 10 s, from here on. In this test it stops
                # as soon as no process of the proxy is left that knows the old routes.
                with idling(proxy) as ask_again:
                    with renewed(proxy):
                        old_status.say(removals=(leaving("ranker", "Draining"),))
                    assert placed(proxy) == [new_status.name]
                    old.serve()
                    old_status.say()
                    assert ask_again() == 1.0 + 10 * new.number
                old, new, old_status, new_status = new, old, new_status, old_status
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, log.read_text()
    assert rest.failures == []
    assert rpc.failures == []
    for caller in (rest, rpc):
        assert {11.0, 21.0} == set(caller.answers), "both nodes have answered"
        assert caller.answers[-1] == 11.0, "it is back where it was"
    assert "ranker is served by node-2 (was node-1, node-2)" in log.read_text()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[tuple[Proxy, ConfigRemote, StatusNode, StatusNode]]:
    """An nginx that nobody asks anything, and two nodes without a model server."""
    proxy, remote = Proxy("nginx", tmp_path / "proxy"), ConfigRemote(tmp_path)
    nodes = StatusNode("node-1"), StatusNode("node-2")
    with answering(nodes[0]), answering(nodes[1]):
        listed = [
            {"name": node.name, "address": node.address, "rest": f"127.0.0.{number}:8501"}
            for number, node in enumerate(nodes, 1)
        ]
        remote.commit({"groups/search.yaml": json.dumps({"nodes": listed})}, "Say where nodes are")
        proxy.start({})
        yield proxy, remote, *nodes
        proxy.stop()


def test_a_dead_node_is_left_out_at_once_and_the_last_nodes_never(
    bare: tuple[Proxy, ConfigRemote, StatusNode, StatusNode],
) -> None:
    proxy, remote, first, second = bare
    first.say(outcome("ranker"), outcome("alone"))
    second.say(outcome("ranker"))
    with sidecar(proxy, remote.work) as process:
        wait_for(lambda: placed(proxy) == ["node-1", "node-2"], "both nodes")
        first.code = 500
        wait_for(lambda: placed(proxy) == ["node-2"], "the node that is left")
        said = read_head(proxy.file.read_text())
        assert [server.node for server in said["alone"]] == ["node-1"], "nobody else has it"
        second.code = 500
        log = proxy.folder / "sidecar.log"
        wait_for(lambda: "no node can be asked, so nothing is changed" in log.read_text(), "word")
        assert read_head(proxy.file.read_text()) == said
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    # One that starts while all are silent goes on from the file, and so does what it serves.
    before = proxy.file.read_text()
    with sidecar(proxy, remote.work):
        wait_for(lambda: log.read_text().count("so nothing is changed") == 2, "word again")
        assert proxy.file.read_text() == before
        second.code = 200
        wait_for(lambda: log.read_text().count("the proxy was told") == 3, "the proxy told")
        assert read_head(proxy.file.read_text()) == said, "of node-1 nothing is known yet"


def test_a_file_that_the_proxy_refuses_is_not_put_in_place(
    bare: tuple[Proxy, ConfigRemote, StatusNode, StatusNode],
) -> None:
    proxy, remote, first, second = bare
    first.say(outcome("ranker"))
    with ExitStack() as stack:
        with renewed(proxy):
            stack.enter_context(sidecar(proxy, remote.work))
        before, workers = proxy.file.read_text(), proxy.workers
        nodes = [
            {"name": "node-1", "address": first.address},
            {"name": "node-2", "address": second.address, "grpc": "no-such-host.invalid:8500"},
        ]
        nodes[1]["rest"] = "127.0.0.2:8501"
        remote.commit({"groups/search.yaml": json.dumps({"nodes": nodes})}, "A slip")
        second.say(outcome("ranker"))
        log = proxy.folder / "sidecar.log"
        wait_for(lambda: "the proxy would not take the new file" in log.read_text(), "the refusal")
        assert "no-such-host.invalid" in log.read_text(), "in the proxy's own words"
        assert (proxy.file.read_text(), proxy.workers) == (before, workers)
        assert not list(proxy.folder.glob(".*candidate*")), "nothing is left lying about"
        del nodes[1]["grpc"]
        remote.commit({"groups/search.yaml": json.dumps({"nodes": nodes})}, "Mend it")
        wait_for(lambda: placed(proxy) == ["node-1", "node-2"], "both nodes")
        wait_for(lambda: "nothing is in the way any more" in log.read_text(), "the all-clear")


def test_a_broken_group_file_takes_no_node_out(
    bare: tuple[Proxy, ConfigRemote, StatusNode, StatusNode],
) -> None:
    proxy, remote, first, second = bare
    first.say(outcome("ranker"))
    with sidecar(proxy, remote.work):
        wait_for(lambda: placed(proxy) == ["node-1"], "the first node")
        remote.commit({"groups/search.yaml": "nodes: 7\n"}, "A slip")
        second.say(outcome("ranker"))
        wait_for(lambda: placed(proxy) == ["node-1", "node-2"], "both nodes all the same")


def render(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "reconciler.cli.main", "ingress", "render", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_render_writes_once_and_says_what_it_left_out(tmp_path: Path) -> None:
    with answering(StatusNode("node-1")) as first, answering(StatusNode("node-2")) as second:
        first.say(outcome("ranker"))
        second.code = 500
        out = tmp_path / "fleet.cfg"
        nodes = ("--node", first.address, "--node", second.address)
        done = render("--for", "haproxy", *nodes, "--out", str(out), "--grpc-port", "18500")
        assert (done.returncode, done.stdout) == (0, "")
        assert second.address in done.stderr
        assert f"requests for any of {first.address}, {second.address} go to" in done.stderr
        assert "server node-1 127.0.0.1:18500 proto h2" in out.read_text()
        printed = render("--for", "haproxy", *nodes, "--grpc-port", "18500")
        assert printed.stdout == out.read_text()
        first.code = 500
        done = render("--for", "haproxy", *nodes, "--out", str(out))
        assert done.returncode == 1
        assert "reconciler: no node can be asked, so nothing is changed" in done.stderr
        assert "requests for any" not in done.stderr, "of no help there"
        assert out.read_text() == printed.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--node", "10.0.0.7"], "--node '10.0.0.7' is not host:port"),
        (["--node", "http://ada:hunter2@a:1"], "--node (not shown, it may hold a password) is not"),
        (["--node", "a:1", "--listen-grpc", "8500; include /etc/passwd"], "is not host:port"),
        (["--node", "a:1", "--domain", "x y"], "is not a domain"),
        (["--node", "a:1", "-C", "."], "not both"),
        (["--node", "a:1", "--timeout", "soon"], "is not a duration"),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments: list[str], words: str) -> None:
    done = render("--for", "nginx", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "hunter2" not in done.stderr


def test_a_clone_that_is_gone_is_not_taken_for_a_missing_git(tmp_path: Path) -> None:
    clone = ConfigRemote(tmp_path)
    clone.commit({"groups/search.yaml": "nodes: [search-1]\n"})
    nodes = CloneNodes(clone.work, 8500, 8501)
    clone.work.rename(tmp_path / "elsewhere")
    with pytest.raises(GitError, match=f"there is no folder {clone.work} any more"):
        nodes.read()


def test_a_clone_without_a_commit_is_said(tmp_path: Path) -> None:
    git("init", "-q", str(tmp_path), cwd=tmp_path)
    done = render("--for", "nginx", "-C", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"reconciler: no commit was made yet in {tmp_path}\n"
