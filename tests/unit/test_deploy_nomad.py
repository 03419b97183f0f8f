"""The Nomad jobs: they parse, and everything that they refer to exists.

Whether Nomad takes every key can only be said by Nomad; `tests/integration/test_nomad_try.py` runs
what the tasks start, and Nomad itself where it is installed.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import reconciler
from reconciler.settings import environment_name, load_settings, setting_fields
from reconciler.standin.flags import parse_flags
from tests.nomadjobs import DOCKER, FOLDER, RAW_EXEC, NomadJob, labelled, read_hcl, read_job

SETTINGS = {environment_name(item.name) for item in setting_fields()}
TEMPLATES_OF = re.compile(r"\{\{ (?:with )?\.(\w+) \}\}")
MANDATORY_FLAGS = {
    "model_config_file_poll_wait_seconds": 0,
    "file_system_poll_wait_seconds": 1,
    "allow_version_labels_for_unavailable_models": True,
    "num_load_threads": 2,
    "num_unload_threads": 2,
    "max_num_load_retries": 1,
    "load_retry_interval_micros": 1_000_000,
}
"""Why each: README.md, "A real bucket and a real server"."""


@pytest.fixture(params=[DOCKER, RAW_EXEC], ids=lambda path: path.name)
def job(request: pytest.FixtureRequest) -> NomadJob:
    return read_job(request.param, group="search", repo="https://git.example.com/models.git")


def blocks_named(value: Any, name: str) -> list[Any]:
    """Return every block of this name, at any depth."""
    if isinstance(value, list):
        return [found for item in value for found in blocks_named(item, name)]
    if not isinstance(value, dict):
        return []
    own = value.get(name, [])
    return [
        *(own if isinstance(own, list) else [own]),
        *(found for item in value.values() for found in blocks_named(item, name)),
    ]


def test_every_variable_is_declared_and_used(job: NomadJob) -> None:
    assert job.used == job.declared


def test_a_variable_that_is_not_declared_is_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.hcl"
    broken.write_text(DOCKER.read_text().replace("var.repo", "var.repository"))
    with pytest.raises(KeyError, match="repository"):
        read_job(broken, group="search", repo="x")


def test_it_runs_on_the_nodes_of_its_group_under_a_name_of_its_own(job: NomadJob) -> None:
    assert job.job["type"] == "system"
    assert job.job["id"] == job.job["name"] == "tfserving-search"
    assert job.job["constraint"] == [{"attribute": "${meta.reconciler_group}", "value": "search"}]


def test_an_update_goes_node_by_node_and_back_when_one_fails(job: NomadJob) -> None:
    [update] = job.job["update"]
    assert (update["max_parallel"], update["auto_revert"]) == (1, True)
    assert update["health_check"] == "checks"
    assert minutes(update["progress_deadline"]) > minutes(update["healthy_deadline"])


def minutes(text: str) -> int:
    assert text.endswith("m")
    return int(text.removesuffix("m"))


def test_an_allocation_is_never_given_up(job: NomadJob) -> None:
    [restart] = job.group["restart"]
    assert restart["mode"] == "delay"


def test_the_agent_is_a_sidecar_that_starts_first(job: NomadJob) -> None:
    assert job.tasks.keys() == {"agent", "server"}
    assert job.tasks["agent"]["lifecycle"] == [{"hook": "prestart", "sidecar": True}]
    assert "lifecycle" not in job.tasks["server"]


def test_every_volume_that_is_mounted_exists_and_the_server_only_reads() -> None:
    job = read_job(DOCKER, group="search", repo="x")
    volumes = labelled(job.group["volume"])
    mounts = {
        name: {mount["volume"]: mount for mount in task["volume_mount"]}
        for name, task in job.tasks.items()
    }
    assert mounts["agent"].keys() == volumes.keys() == {"models", "state"}
    assert mounts["server"].keys() == {"models"}
    assert mounts["server"]["models"]["read_only"] is True
    [env] = job.tasks["agent"]["env"]
    assert mounts["agent"]["models"]["destination"] == env["RECONCILER_MODELS_DIR"]
    assert mounts["agent"]["state"]["destination"] == env["RECONCILER_STATE_DIR"]
    assert mounts["server"]["models"]["destination"] == env["RECONCILER_MODELS_DIR"]


def test_plain_processes_use_no_volumes_which_their_driver_does_not_know() -> None:
    job = read_job(RAW_EXEC, group="search", repo="x")
    assert blocks_named(job.job, "volume_mount") == blocks_named(job.job, "volume") == []


def test_every_port_that_is_named_exists_and_none_is_used_twice(job: NomadJob) -> None:
    [network] = job.group["network"]
    ports = labelled(network["port"])
    named = {service["port"] for service in blocks_named(job.job, "service")}
    named |= set(re.findall(r"NOMAD_(?:PORT|ADDR)_(\w+)", str(job.job)))
    assert named == ports.keys()
    numbers = [port["static"] for port in ports.values()]
    assert len(numbers) == len(set(numbers)) and all(isinstance(item, int) for item in numbers)


def test_services_are_checked_where_they_answer(job: NomadJob) -> None:
    services = {
        task: {check["path"] for check in blocks_named(body, "check") if check["type"] == "http"}
        for task, body in job.tasks.items()
    }
    assert services == {"agent": {"/livez", "/readyz"}, "server": set()}
    [opened] = blocks_named(job.tasks["server"], "check")
    assert opened["type"] == "tcp"
    restarting = [check["path"] for check in blocks_named(job.job, "check") if restarts(check)]
    assert restarting == ["/livez"]


def restarts(check: dict[str, Any]) -> bool:
    return "check_restart" in check


def test_every_setting_is_one_and_together_they_are_accepted(job: NomadJob) -> None:
    [env] = job.tasks["agent"]["env"]
    assert set(re.findall(r"RECONCILER_\w+", job.text)) <= SETTINGS
    assert env.keys() <= SETTINGS
    filled = {name: fill_client(value) for name, value in env.items()}
    settings = load_settings({}, filled)
    assert (settings.node, settings.listen) == ("node-1", "10.0.0.7:8080")
    assert settings.serving == "127.0.0.1:8500"


def fill_client(text: str) -> str:
    """Fill in what the client knows."""
    for name, value in {
        "node.unique.name": "node-1",
        "NOMAD_ADDR_status": "10.0.0.7:8080",
        "NOMAD_PORT_grpc": "8500",
        "NOMAD_PORT_rest": "8501",
        "NOMAD_SECRETS_DIR": "/secrets",
    }.items():
        text = text.replace("${" + name + "}", value)
    assert "${" not in text, text
    return text


def test_every_secret_file_is_rendered_for_the_agent_alone(job: NomadJob) -> None:
    agent = job.tasks["agent"]
    rendered = {item["destination"].rpartition("/")[2]: item for item in agent["template"]}
    [env] = agent["env"]
    asked = [value for name, value in env.items() if name.endswith("_FILE")]
    asked += re.findall(r"=\{\{ env \"NOMAD_SECRETS_DIR\" \}\}(/[\w.-]+)", str(agent["template"]))
    assert {path.rpartition("/")[2] for path in asked} | {"named.env"} == rendered.keys()
    for name, item in rendered.items():
        assert item["destination"].startswith("${NOMAD_SECRETS_DIR}/")
        assert 'nomadVar "nomad/jobs/tfserving-search"' in item["data"]
        if name != "named.env":
            assert (item["perms"], item["uid"]) == ("0400", 10001)
    assert "template" not in job.tasks["server"]


def test_the_page_tells_of_every_secret(job: NomadJob) -> None:
    keys = set(TEMPLATES_OF.findall(str(job.tasks["agent"]["template"])))
    assert keys == {"git_token", "sync_token", "gcs_key", "nomad_token"}
    page = (FOLDER / "README.md").read_text()
    assert all(f"`{key}`" in page or f"{key}=" in page for key in keys)


def test_the_groups_on_the_page_are_groups() -> None:
    schema = json.loads((FOLDER.parents[1] / "schema" / "group.schema.json").read_text())
    blocks = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        jsonschema.validate(yaml.safe_load(block), schema)


def test_the_client_config_on_the_page_has_what_the_job_asks_for() -> None:
    job = read_job(DOCKER, group="search", repo="x")
    [block] = re.findall(r"```hcl\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    [client] = read_hcl(block)["client"]
    assert client["meta"] == [{"reconciler_group": job.job["constraint"][0]["value"]}]
    sources = {volume["source"] for volume in labelled(job.group["volume"]).values()}
    assert labelled(client["host_volume"]).keys() == sources


def test_the_server_waits_for_its_config_and_takes_every_flag(job: NomadJob) -> None:
    [config] = job.tasks["server"]["config"]
    [env] = job.tasks["agent"]["env"]
    arguments = [*config.get("entrypoint", [config.get("command")]), *config["args"]]
    assert arguments[:2] == ["/bin/sh", "-ec"]
    script, name, *given = arguments[2:]
    assert name == "tensorflow_model_server"
    flags, unknown = parse_flags([fill_client(flag) for flag in given])
    assert unknown == ()
    assert {name: getattr(flags, name) for name in MANDATORY_FLAGS} == MANDATORY_FLAGS
    assert (flags.port, flags.rest_api_port) == (8500, 8501)
    assert flags.model_config_file == f"{env['RECONCILER_MODELS_DIR']}/models.config"
    assert f"{env['RECONCILER_MODELS_DIR']}/models.config" in script


def test_containers_may_do_nothing_that_they_need_not() -> None:
    job = read_job(DOCKER, group="search", repo="x")
    for name, task in job.tasks.items():
        [config] = task["config"]
        assert not task["user"].startswith(("0", "root")), name
        assert (config["cap_drop"], config["readonly_rootfs"]) == (["ALL"], True), name
        assert config["security_opt"] == ["no-new-privileges"], name
        assert config.get("init", False) is (name == "server"), "the agent's image has its own"


def test_the_image_is_of_this_version() -> None:
    job = read_job(DOCKER, group="search", repo="x")
    [config] = job.tasks["agent"]["config"]
    assert config["image"] == f"reconciler:{reconciler.__version__}"


def test_the_script_is_one_for_bash_and_says_what_it_misses(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, str(FOLDER / "try.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nomad is not on PATH; ")
