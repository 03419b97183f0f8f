"""A fleet whose status endpoints speak TLS and want a token, and all the commands that ask it."""

import json
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.stage import Stage, deployment, wait_until

TOKEN = "only-for-those-who-know"


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """A certificate and a read token; what the nodes know, the commands know."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return {
        "RECONCILER_TLS_CERT_FILE": str(tmp_path / "node.pem"),
        "RECONCILER_TLS_CA_FILE": str(tmp_path / "ca.pem"),
        "RECONCILER_READ_TOKEN_FILE": str(tmp_path / "token"),
    }


def group(*stages: Stage) -> dict[str, str]:
    nodes = [{"name": stage.node, "address": url_of(stage)} for stage in stages]
    return {"groups/g.yaml": json.dumps({"nodes": nodes})}


def url_of(stage: Stage) -> str:
    return f"https://127.0.0.1:{stage.status_port}"


def test_every_command_asks_the_way_the_nodes_want_it(
    make_stage: Callable[..., Stage], settings: dict[str, str], tmp_path: Path
) -> None:
    stage = make_stage(settings=settings)
    url = url_of(stage)
    stage.publish("ranker", 1)
    stage.commit(group(stage), deployment("ranker", 1), subject="Serve ranker")
    stage.start()
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=url, verify=context, headers=headers, trust_env=False) as client:

        def phase() -> str:
            try:
                report = client.get("/status").json()
            except httpx.TransportError:
                return ""
            return str([item["phase"] for item in report.get("deployments", ())])

        wait_until(lambda: phase() == "['Deployed']", "the deployment")
        wait_until(lambda: client.get("/fleet.json").json()["state"] == "well", "the view")
    assert "ranker" in stage.run_command("status", url)
    assert "Deployed" in stage.run_command("fleet", "status", "-C", ".")
    assert "Deployed" in stage.run_command("fleet", "status", "--url", url)
    assert '"node": "node"' in stage.run_command("history", "--json", "ranker")
    proxies = stage.run_command("ingress", "render", "--for", "nginx", "-C", ".")
    assert "127.0.0.1:8500" in proxies
    project = ("--to", "github", "--project", "acme/fleet")
    assert "success" in stage.run_command("commit-status", *project, "--dry-run")
    without = stage.run_command("status", "--read-token-file", "/dev/null", url, codes=(2,))
    assert "the read token file /dev/null is missing, unreadable, empty" in without
    stranger = stage.run_command(
        "status", "--tls-ca-file", str(_another(tmp_path)), url, codes=(2,)
    )
    assert "shows a certificate that is not accepted" in stranger
    stage.publish("ranker", 2)
    stage.commit(deployment("ranker", 2))
    wait_until(lambda: "deployed ranker 2" in stage.log, "version 2")
    for name in stage.bucket.names():
        if name.startswith("ranker/1/"):
            stage.bucket.delete(name)
    assert "but node has it on disk" in stage.run_command("rollback", "ranker", "--dry-run")
    assert TOKEN not in stage.log


def test_nodes_hear_each_other_between_waves(
    make_stage: Callable[..., Stage], settings: dict[str, str]
) -> None:
    first = make_stage(node="n1", settings=settings)
    second = make_stage(node="n2", settings=settings, beside=first)
    nodes = (first, second)
    waves = {"waves": [1, "100%"], "pause": "0s"}
    first.publish("ranker", 1)
    first.publish("ranker", 2)
    first.commit(group(*nodes), deployment("ranker", 1, rollout=waves))
    for stage in nodes:
        stage.start()
    wait_until(lambda: all(stage.serving("ranker") == {1} for stage in nodes), "version 1")
    first.commit(deployment("ranker", 2, rollout=waves))
    # Whoever is not in the first wave goes on only when he has heard of those in it.
    wait_until(lambda: all(stage.serving("ranker") == {2} for stage in nodes), "version 2")
    assert TOKEN not in first.log + second.log


def _another(folder: Path) -> Path:
    trustme.CA().cert_pem.write_to_path(folder / "another.pem")
    return folder / "another.pem"
