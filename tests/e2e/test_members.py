"""A group whose nodes Nomad knows: they come, go, flap, and Nomad itself is away."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from reconciler.planning.placement import holders
from tests.e2e.stage import Stage, deployment, wait_until


@dataclass
class Nomad:
    """The part of Nomad's API that lists its clients."""

    url: str
    nodes: dict[str, str] = field(default_factory=dict)
    """Name -> address."""
    is_away: bool = False
    asked: int = 0

    def list(self) -> list[dict[str, Any]]:
        return [
            {
                "ID": f"{name}-id",
                "Name": name,
                "Address": address,
                "Status": "ready",
                "Drain": False,
                "SchedulingEligibility": "eligible",
                "NodeClass": "search",
            }
            for name, address in self.nodes.items()
        ]


@contextmanager
def run_nomad() -> Iterator[Nomad]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nomad.asked += 1
            body = json.dumps(nomad.list()).encode()
            self.send_response(500 if nomad.is_away else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    nomad = Nomad(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield nomad
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def members(stage: Stage) -> list[str]:
    found: list[str] = stage.status().get("members", [])
    return found


def test_nodes_that_nomad_lists_share_the_models(make_stage: Callable[..., Stage]) -> None:
    with run_nomad() as nomad:
        settings = {"RECONCILER_NOMAD_ADDRESS": nomad.url}
        one = make_stage(node="one", host="127.0.0.2", settings=settings)
        two = make_stage(node="two", host="127.0.0.3", settings=settings, beside=one)
        two.status_port = one.status_port
        stages = {"one": one, "two": two}
        nomad.nodes = {name: stage.host for name, stage in stages.items()}
        lookup = {"nomad": 'NodeClass == "search"', "port": one.status_port}
        one.publish("ranker", 1)
        one.commit(
            {"fleet.yaml": "member_timeout: 7s\ndrain: 500ms\nmax_removals: 10\n"},
            {"groups/g.yaml": json.dumps({"nodes": lookup})},
            deployment("ranker", 1, replicas=1),
        )
        for stage in stages.values():
            stage.start()
        (holder,) = holders("g/ranker", dict.fromkeys(stages, 1.0), 1)
        other = next(name for name in stages if name != holder)
        stages[holder].wait_served("ranker", 1)
        for stage in stages.values():
            assert members(stage) == ["one", "two"]
            assert stage.condition("MembersKnown")["holds"]
        assert stages[other].status()["deployments"] == []

        # Nomad is away: everything stays, and is said; also after a restart.
        nomad.is_away = True
        for stage in stages.values():
            wait_until(
                lambda stage=stage: stage.condition("MembersKnown").get("holds") is False,  # type: ignore[misc]
                "Nomad to be missed",
            )
            assert "keeps the 2 members known last" in stage.condition("MembersKnown")["sentence"]
        stages[holder].stop_agent()
        stages[holder].start_agent()
        wait_until(lambda: members(stages[holder]) == ["one", "two"], "the members to be recalled")
        stages[holder].wait_served("ranker", 1)
        nomad.is_away = False

        # Nomad drains the holder: it is gone after the timeout, and the other takes over.
        nomad.nodes.pop(holder)
        stages[other].wait_served("ranker", 1)
        assert members(stages[other]) == [other]

        # The one that is out keeps what it serves: no group names it, which may be a mistake.
        wait_until(
            lambda: stages[holder].condition("NodeKnown").get("holds") is False,
            "the one that is out to know it",
        )
        assert stages[holder].serving("ranker") == {1}

        # An empty list is not believed.
        asked = nomad.asked
        nomad.nodes.clear()
        wait_until(lambda: nomad.asked > asked + 2, "Nomad to be asked again")
        wait_until(
            lambda: stages[other].condition("MembersKnown").get("reason") == "RegistryEmpty",
            "the empty list to be refused",
        )
        assert members(stages[other]) == [other]
        assert stages[other].serving("ranker") == {1}


def test_one_pass_waits_for_who_is_in_the_group(make_stage: Callable[..., Stage]) -> None:
    """A pass begins with the commit, before which nobody can know whom to ask."""
    with run_nomad() as nomad:
        node = make_stage(node="one", settings={"RECONCILER_NOMAD_ADDRESS": nomad.url})
        nomad.nodes = {"one": node.host}
        node.publish("ranker", 1)
        lookup = {"nomad": 'NodeClass == "search"', "port": node.status_port}
        node.commit({"groups/g.yaml": json.dumps({"nodes": lookup})}, deployment("ranker", 1))
        node.start_agent([sys.executable, "-m", "reconciler.cli.main", "once", "--timeout", "30s"])
        node.start_server()
        assert node.agent is not None
        assert node.agent.wait(40) == 0, node.log
        assert node.serving("ranker") == {1}
