"""Swarm's stack files name only what exists: settings, flags, secrets, configs, volumes, networks.

Whether Swarm takes them is played in `tests/swarm`, where an engine can start; here every file is
merged as `docker stack deploy` merges them.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.settings import environment_name, setting_fields
from reconciler.standin.flags import parse_flags

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/swarm"
STACK = FOLDER / "stack.yml"
CREDENTIALS = [FOLDER / f"{name}.yml" for name in ("deploy-key", "git-token", "service-account")]
FILES = [STACK, *CREDENTIALS]
README = (FOLDER / "README.md").read_text()
VARIABLES = {"GROUP": "search", "RECONCILER_IMAGE": "local/x:1", "RECONCILER_REPO": "ssh://g/r"}
_VARIABLE = re.compile(r"(?<!\$)\$\{?(\w+)")


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def merge(base: Any, more: Any) -> Any:
    """Merge as compose files are: maps key by key, lists one after the other."""
    if isinstance(base, dict) and isinstance(more, dict):
        return base | {key: merge(base.get(key), value) for key, value in more.items()}
    if isinstance(base, list) and isinstance(more, list):
        return base + more
    return more


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for path in FILES:
        whole = merge(whole, read(path))
    return whole


def sources(service: dict[str, Any], kind: str) -> list[str]:
    """Return the names that a service's volumes, secrets, configs or networks refer to."""
    entries = service.get(kind, [])
    if kind == "volumes":
        entries = [entry for entry in entries if entry["type"] == "volume"]
    return [entry if isinstance(entry, str) else entry["source"] for entry in entries]


def paths(stack: dict[str, Any]) -> set[str]:
    """Return where the agent's secrets and configs appear."""
    agent = stack["services"]["agent"]
    secrets = {f"/run/secrets/{secret['target']}" for secret in agent["secrets"]}
    return secrets | {config["target"] for config in agent["configs"]}


def test_every_file_of_the_folder_is_known() -> None:
    assert set(FOLDER.glob("*.yml")) == set(FILES)


@pytest.mark.parametrize("kind", ["networks", "volumes", "secrets", "configs"])
def test_what_is_referred_to_exists_and_what_exists_is_used(
    stack: dict[str, Any], kind: str
) -> None:
    used = {name for service in stack["services"].values() for name in sources(service, kind)}
    assert used
    assert used == set(stack[kind])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_brings_the_secrets_and_configs_that_it_uses(path: Path) -> None:
    content = read(path)
    for kind in ("secrets", "configs"):
        used = {name for service in content["services"].values() for name in sources(service, kind)}
        assert used == set(content.get(kind, {}))


def test_a_config_made_from_a_file_has_its_file(stack: dict[str, Any]) -> None:
    files = [config["file"] for config in stack["configs"].values() if "file" in config]
    assert files
    for file in files:
        assert (FOLDER / file).is_file()


def test_the_environment_holds_settings_of_the_agent(stack: dict[str, Any]) -> None:
    known = {environment_name(item.name): item for item in setting_fields()}
    environment = stack["services"]["agent"]["environment"]
    ours = {name for name in environment if name.startswith("RECONCILER_")}
    assert ours <= set(known)
    assert set(environment) - ours == {"GOOGLE_APPLICATION_CREDENTIALS"}
    for name, value in environment.items():
        is_path = name not in ours or known[name].metadata["kind"] == "path"
        assert not is_path or value in paths(stack), f"{name} leads nowhere"


def test_every_secret_is_told_to_the_agent_and_readable_by_it_alone(stack: dict[str, Any]) -> None:
    agent = stack["services"]["agent"]
    assert paths(stack) <= set(agent["environment"].values())
    dockerfile = (ROOT / "Dockerfile").read_text()
    for secret in agent["secrets"]:
        assert f"USER {secret['uid']}:{secret['gid']}" in dockerfile
        assert secret["mode"] == 0o400
    assert "secrets" not in stack["services"]["serving"]


def test_a_secret_can_be_replaced_by_one_of_another_name(stack: dict[str, Any]) -> None:
    # Swarm's secrets and configs cannot be changed: a name that ends in a number can be counted up.
    for kind in ("secrets", "configs"):
        for name, entry in stack[kind].items():
            assert re.fullmatch(r"reconciler_.*_\d+", entry["name"]), name


def test_the_model_server_has_flags_that_it_knows(stack: dict[str, Any]) -> None:
    service = stack["services"]["serving"]
    flags, unknown = parse_flags(service["command"])
    assert unknown == ()
    folder = next(v["target"] for v in service["volumes"] if v.get("source") == "models")
    assert flags.model_config_file == f"{folder}/models.config"
    assert flags.model_config_file in service["entrypoint"][2]
    assert flags.model_config_file_poll_wait_seconds == 0
    assert flags.allow_version_labels_for_unavailable_models
    assert flags.num_load_threads >= 1
    assert flags.num_unload_threads >= 1
    assert flags.max_num_load_retries <= 1
    assert flags.load_retry_interval_micros == 1_000_000
    published = {port["target"] for port in service["ports"]}
    assert published == {flags.port, flags.rest_api_port}
    monitoring = next(f for f in service["command"] if f.startswith("--monitoring_config_file="))
    assert monitoring.partition("=")[2] in {config["target"] for config in service["configs"]}


def test_agent_and_server_meet(stack: dict[str, Any]) -> None:
    agent, serving = stack["services"]["agent"], stack["services"]["serving"]
    flags, _ = parse_flags(serving["command"])
    assert agent["environment"]["RECONCILER_SERVING"] == f"127.0.0.1:{flags.port}"
    assert agent["networks"] == serving["networks"] == ["node"]
    assert stack["networks"]["node"] == {"name": "host", "external": True}
    folders = {v["source"]: v for v in agent["volumes"]}
    models = next(v for v in serving["volumes"] if v.get("source") == "models")
    assert models["target"] == folders["models"]["target"]
    assert models["read_only"]
    defaults = {item.name: item.default for item in setting_fields()}
    assert folders["models"]["target"] == str(defaults["models_dir"])
    assert folders["state"]["target"] == str(defaults["state_dir"])
    listen = agent["environment"]["RECONCILER_LISTEN"]
    assert [f"0.0.0.0:{port['published']}" for port in agent["ports"]] == [listen]


@pytest.mark.parametrize("name", ["agent", "serving"])
def test_a_service_is_bounded_and_can_go_back(stack: dict[str, Any], name: str) -> None:
    service = stack["services"][name]
    deploy = service["deploy"]
    assert deploy["mode"] == "global"
    assert deploy["endpoint_mode"] == "dnsrr"
    assert deploy["placement"]["constraints"][0].startswith("node.labels.group == ${GROUP")
    assert deploy["resources"]["limits"]["memory"]
    assert deploy["update_config"]["failure_action"] == "rollback"
    assert deploy["update_config"]["parallelism"] == 1
    # The other order would have two of them want one folder and one port.
    assert deploy["update_config"]["order"] == deploy["rollback_config"]["order"] == "stop-first"
    assert service["read_only"]
    assert service.get("init", False) is (name == "serving"), "the agent's image has its own"
    assert service["cap_drop"] == ["ALL"]
    assert service["healthcheck"]["test"]
    assert {port["mode"] for port in service["ports"]} == {"host"}
    image = service["image"]
    assert re.search(r":\d|RECONCILER_IMAGE:\?", image), "the version must be pinned"


def test_the_server_reads_the_models_as_the_agents_group(stack: dict[str, Any]) -> None:
    agent_user, _, group = stack["services"]["agent"]["secrets"][0]["uid"], ":", "10001"
    user, _, gid = stack["services"]["serving"]["user"].partition(":")
    assert gid == group
    assert user not in ("0", agent_user)


def test_the_page_names_every_variable_and_file() -> None:
    asked = {name for path in FILES for name in _VARIABLE.findall(path.read_text())}
    assert asked >= set(VARIABLES)
    for name in asked | {path.name for path in FILES}:
        assert name in README, name


def test_the_page_creates_every_secret_and_config_that_a_stack_expects() -> None:
    for path in FILES:
        content = read(path)
        for kind in ("secret", "config"):
            for entry in content.get(f"{kind}s", {}).values():
                if entry.get("external"):
                    assert re.search(rf"docker {kind} create {entry['name']} ", README)


def commands() -> Iterator[str]:
    """Yield every line of the page's shell blocks."""
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


def test_the_page_gives_files_that_exist_to_stack_deploy() -> None:
    named = [name for line in commands() for name in re.findall(r"--compose-file (\S+)", line)]
    assert named
    assert {FOLDER / name for name in named} <= set(FILES)


@pytest.mark.skipif(
    shutil.which("docker") is None,
    reason="no docker command: its own check of the files is left out",
)
def test_dockers_own_reading_of_the_files_succeeds(tmp_path: Path) -> None:
    command = ["docker", "stack", "config"]
    for path in FILES:
        command += ["--compose-file", str(path)]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), **VARIABLES}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if "is not a docker command" in done.stderr or "unknown shorthand" in done.stderr:
        pytest.skip("this docker command cannot check stack files (it came with 23.0)")
    assert done.returncode == 0, done.stderr
    read_back = yaml.safe_load(done.stdout)
    assert set(read_back["services"]) == {"agent", "serving"}
    assert read_back["services"]["agent"]["environment"]["RECONCILER_REPO"] == "ssh://g/r"
