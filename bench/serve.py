"""From a push to the version being served, the version on disk; back again; and a promotion.

    python -m bench.serve [--runs 10] [--write STEM]

A real agent as a process, git over http with the webhook, fake-gcs-server, and the stand-in model
server with TensorFlow Serving's own pace: it looks at its folders once a second. What the agent
adds is the time during which the server has nothing to do: from the end of the push to the reload
that reaches the server and, where a version has to leave for another to answer, from the moment
when the other is AVAILABLE to the next reload. The rest is the server's own poll and load. A
gRPC relay between the two notes when reloads pass; the server's states are read every 2 ms.

A change to a higher version is over when that is AVAILABLE; a rollback to a lower one when the
higher has stopped answering. A promotion deploys the same bytes under another model's name. The
bucket's log is searched for reads of bytes.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx

from bench.outcome import add_options, tell
from bench.parts import make_environment, run_agent, wait_until
from reconciler.demo.services import Services, free_port, model_server_command, start_bucket
from reconciler.serving.protocol.control_pb2 import GetModelStatusRequest, GetModelStatusResponse
from reconciler.serving.protocol.methods import GET_MODEL_STATUS, RELOAD_CONFIG
from tests.bucket import read_files
from tests.forges import SECRET, github
from tests.gitserver import ConfigRemote, serve_http
from tests.savedmodels import write_savedmodel

_WAIT_SECONDS = 60.0
_LOOK_SECONDS = 0.002
_GOAL_MS = 300
_AVAILABLE = 30
_BUCKET = "models"


@dataclass
class Relay:
    """Passes what the agent asks on to the server, and notes when reloads come."""

    reloads: list[float] = field(default_factory=list)

    @contextmanager
    def serve(self, port: int, upstream: str) -> Iterator[None]:
        """Pass calls on for a block."""
        with grpc.insecure_channel(upstream) as channel:
            handlers = [
                grpc.method_handlers_generic_handler(
                    method.service,
                    {
                        method.name: grpc.unary_unary_rpc_method_handler(
                            self._make_handler(channel, method.path)
                        )
                    },
                )
                for method in (GET_MODEL_STATUS, RELOAD_CONFIG)
            ]
            server = grpc.server(ThreadPoolExecutor(16), handlers=handlers)
            server.add_insecure_port(f"127.0.0.1:{port}")
            server.start()
            try:
                yield
            finally:
                server.stop(None).wait(_WAIT_SECONDS)

    def _make_handler(self, channel: grpc.Channel, path: str) -> Any:
        call = channel.unary_unary(path)

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            if path == RELOAD_CONFIG.path:
                self.reloads.append(time.monotonic())
            try:
                answer: bytes = call(request, timeout=_WAIT_SECONDS)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())  # type: ignore[attr-defined]
                raise
            return answer

        return handle


@dataclass
class Watcher:
    """Reads the server's states and notes when they change."""

    channel: grpc.Channel
    models: tuple[str, ...]
    changes: list[tuple[float, str, int, int]] = field(default_factory=list)
    """When, model, version, state."""
    _states: dict[tuple[str, int], int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch for a block."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(_WAIT_SECONDS)

    def find(self, since: float, model: str, version: int, *, up: bool) -> float | None:
        """Return when a version first was AVAILABLE, or not any more, after `since`."""
        for at, name, number, state in self.changes:
            is_meant = at > since and (name, number) == (model, version)
            if is_meant and (state == _AVAILABLE) == up:
                return at
        return None

    def _run(self) -> None:
        call = self.channel.unary_unary(
            GET_MODEL_STATUS.path,
            request_serializer=GetModelStatusRequest.SerializeToString,
            response_deserializer=GetModelStatusResponse.FromString,
        )
        while not self._stop.wait(_LOOK_SECONDS):
            for model in self.models:
                request = GetModelStatusRequest()
                request.model_spec.name = model
                try:
                    answer = call(request, timeout=_WAIT_SECONDS)
                except grpc.RpcError:
                    continue
                for item in answer.model_version_status:
                    key = model, item.version
                    if self._states.get(key) != item.state:
                        self._states[key] = item.state
                        self.changes.append((time.monotonic(), *key, item.state))


@dataclass
class Stage:
    """Everything around the agent."""

    folder: Path
    remote: ConfigRemote
    client: httpx.Client
    relay: Relay
    watcher: Watcher

    def push(self, model: str, version: int, *, revert: bool = False) -> float:
        """Push a change, send the webhook and return when the push was done."""
        text = json.dumps({"source": f"gs://{_BUCKET}/{model}", "version": version})
        what = "Revert: serve" if revert else "Serve"
        self.remote.commit({f"deployments/g/{model}.yaml": text}, f"{what} {model} {version}")
        begun_at = time.monotonic()
        delivery = github("refs/heads/main")
        headers = {**delivery.headers, "content-type": "application/json"}
        answer = self.client.post("/hooks/git", content=delivery.body, headers=headers)
        assert answer.status_code == 202, answer.text
        return begun_at

    def wait(self, since: float, model: str, version: int, *, up: bool) -> float:
        """Return when a version was AVAILABLE, or not any more."""
        found: float = wait_until(
            lambda: self.watcher.find(since, model, version, up=up), "the change", _WAIT_SECONDS
        )
        return found

    def first_reload(self, since: float) -> float:
        """Return when the next reload after `since` reached the server."""
        found: float = wait_until(
            lambda: next((at for at in self.relay.reloads if at > since), None),
            "the reload",
            _WAIT_SECONDS,
        )
        return found

    def count_reads(self) -> int:
        """Return how often bytes of an object were read."""
        log = (self.folder / "bucket.log").read_text()
        return sum(
            '"GET /' in line.replace("\\", "") and ("alt=media" in line or "/download/" in line)
            for line in log.splitlines()
        )

    def rest(self) -> None:
        """Wait until the node says that all is as asked; then a moment more."""

        def is_settled() -> bool:
            status = self.client.get("/status").json()
            return bool(
                status["applied"]
                and status["applied"]["id"] == status["observed"]["id"]
                and status["summary"].startswith("nothing to do")
            )

        wait_until(is_settled, "rest", _WAIT_SECONDS)
        time.sleep(1.2)  # the agent's own gap between two fetches


def measure(folder: Path, runs: int) -> dict[str, list[dict[str, float]]]:
    """Return what each change took: `ours_ms`, `total_ms`, and the reads of the bucket."""
    remote = ConfigRemote(folder)
    for model, version, value in (("ranker", 1, 1.0), ("ranker", 2, 2.0)):
        _publish(folder, model, version, value)
    promoted = [f"copy{number}" for number in range(runs)]
    for model in promoted:
        _publish(folder, model, 1, 1.0)
    first = json.dumps({"source": f"gs://{_BUCKET}/ranker", "version": 1})
    remote.commit({"groups/g.yaml": "nodes: [node]\n", "deployments/g/ranker.yaml": first})
    (folder / "secret").write_bytes(SECRET)
    relay, port, relay_port, server_port = Relay(), free_port(), free_port(), free_port()
    with (
        Services(folder) as services,
        serve_http(folder) as git,
        relay.serve(relay_port, f"127.0.0.1:{server_port}"),
        grpc.insecure_channel(f"127.0.0.1:{server_port}") as channel,
    ):
        bucket = start_bucket(services, folder / "buckets")
        environment = make_environment(folder, git.url, relay_port, port, bucket) | {
            "RECONCILER_GIT_INTERVAL": "1h",
            "RECONCILER_SETTLE": "0s",
            "RECONCILER_WEBHOOK_SECRET_FILE": str(folder / "secret"),
        }
        watcher = Watcher(channel, ("ranker", *promoted))
        with (
            run_agent(folder, environment),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        ):
            config_file = folder / "models" / "models.config"
            wait_until(config_file.exists, "models.config", _WAIT_SECONDS)
            command = model_server_command(server_port, free_port(), config_file)
            services.start("server", [*command, "--standin_load_seconds=0.02"], {})
            stage = Stage(folder, remote, client, relay, watcher)
            with watcher.watch():
                stage.wait(0.0, "ranker", 1, up=True)
                stage.wait(stage.push("ranker", 2), "ranker", 2, up=True)
                stage.rest()
                found: dict[str, list[dict[str, float]]] = {
                    "rollback": [],
                    "commit to served": [],
                    "promotion": [],
                }
                for model in promoted:
                    found["rollback"].append(_roll_back(stage))
                    found["commit to served"].append(_go_on(stage))
                    found["promotion"].append(_promote(stage, model))
    return found


def _roll_back(stage: Stage) -> dict[str, float]:
    reads = stage.count_reads()
    begun_at = stage.push("ranker", 1, revert=True)
    asked_at = stage.first_reload(begun_at)
    loaded_at = stage.wait(begun_at, "ranker", 1, up=True)
    dropped_at = stage.first_reload(asked_at)
    ended_at = stage.wait(loaded_at, "ranker", 2, up=False)
    stage.rest()
    # The agent may see that it is loaded before the bench does.
    ours = asked_at - begun_at + max(0.0, dropped_at - loaded_at)
    return _result(ours, ended_at - begun_at, stage.count_reads() - reads)


def _go_on(stage: Stage) -> dict[str, float]:
    reads = stage.count_reads()
    begun_at = stage.push("ranker", 2)
    asked_at = stage.first_reload(begun_at)
    ended_at = stage.wait(begun_at, "ranker", 2, up=True)
    stage.rest()
    return _result(asked_at - begun_at, ended_at - begun_at, stage.count_reads() - reads)


def _promote(stage: Stage, model: str) -> dict[str, float]:
    reads = stage.count_reads()
    begun_at = stage.push(model, 1)
    asked_at = stage.first_reload(begun_at)
    ended_at = stage.wait(begun_at, model, 1, up=True)
    stage.rest()
    return _result(asked_at - begun_at, ended_at - begun_at, stage.count_reads() - reads)


def _result(ours_seconds: float, total_seconds: float, reads: int) -> dict[str, float]:
    return {"ours_ms": ours_seconds * 1000, "total_ms": total_seconds * 1000, "reads": reads}


def _publish(folder: Path, model: str, version: int, value: float) -> None:
    made = read_files(write_savedmodel(folder / "exports" / f"{model}-{version}", value))
    for path, content in made.items():
        file = folder / "buckets" / _BUCKET / model / str(version) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), options.runs)
    lines = [
        "| version on disk | ours, median (spread) | goal | with the server | reads |",
        "|---|---|---|---|---|",
    ]
    for what, results in found.items():
        ours = sorted(item["ours_ms"] for item in results)
        total = statistics.median(item["total_ms"] for item in results)
        goal = "" if what == "promotion" else f"{_GOAL_MS} ms"
        lines.append(
            f"| {what} | {statistics.median(ours):.0f} ms ({ours[0]:.0f} to {ours[-1]:.0f}) |"
            f" {goal} | {total:.0f} ms | {sum(item['reads'] for item in results):.0f} |"
        )
    tell("serve", options, "\n".join(lines), found)


if __name__ == "__main__":
    main()
