"""The Kubernetes manifests: valid by Kubernetes' own schemas, and all that they refer to exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

import reconciler
from reconciler.serving.config_file import parse
from reconciler.settings import environment_name, load_settings, setting_fields
from reconciler.standin.flags import parse_flags

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
BASE = FOLDER / "base"
GROUP = FOLDER / "groups" / "search"
SETTINGS = {environment_name(item.name) for item in setting_fields()}
GROUP_LABEL = "tfserving-reconciler/group"
SCHEMAS = ("1.35", "1.36", "1.37")
MODELS = "/var/lib/reconciler/models"
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


def read_kustomization(folder: Path) -> Any:
    return yaml.safe_load((folder / "kustomization.yaml").read_text())


def read_base() -> list[dict[str, Any]]:
    """Return every object of the base, as it is written."""
    return [
        item
        for name in read_kustomization(BASE)["resources"]
        for item in yaml.safe_load_all((BASE / name).read_text())
    ]


def find(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [found] = [item for item in objects if item["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = find(read_base(), "StatefulSet")["spec"]["template"]["spec"]
    return spec


def containers() -> dict[str, dict[str, Any]]:
    spec = pod()
    return {item["name"]: item for item in (*spec["initContainers"], *spec["containers"])}


def read_settings() -> dict[str, str]:
    lines = (BASE / "settings.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def agent_environment() -> dict[str, str]:
    given = {item["name"]: item.get("value", "pod-0") for item in containers()["agent"]["env"]}
    return {**read_settings(), **given}


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    """Return what `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH: the manifests were NOT put together")
    done = subprocess.run(
        ["kubectl", "kustomize", str(GROUP)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_every_file_of_the_base_is_listed() -> None:
    names = {path.name for path in BASE.iterdir()}
    listed = {*read_kustomization(BASE)["resources"], "kustomization.yaml", "settings.env"}
    assert names == listed
    [generated] = read_kustomization(BASE)["configMapGenerator"]
    assert generated == {"name": "settings", "envs": ["settings.env"]}
    assert (GROUP / read_kustomization(GROUP)["resources"][0]).resolve() == BASE


@pytest.mark.parametrize("version", SCHEMAS)
def test_kubernetes_takes_every_object_as_it_is_written(version: str) -> None:
    for item in read_base():
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("version", SCHEMAS)
def test_kubernetes_takes_what_is_put_together(
    rendered: list[dict[str, Any]], version: str
) -> None:
    for item in rendered:
        kubernetes_validate.validate(item, version, strict=True)
    assert len(rendered) == len(read_base()) + 1  # the settings


def test_a_key_that_kubernetes_does_not_know_is_noticed() -> None:
    broken = find(read_base(), "StatefulSet")
    broken["spec"]["template"]["spec"]["initContainer"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, SCHEMAS[-1], strict=True)


def test_every_name_that_is_referred_to_exists() -> None:
    objects = read_base()
    names = {(item["kind"], item["metadata"]["name"]) for item in objects}
    spec = find(objects, "StatefulSet")["spec"]
    assert ("Service", spec["serviceName"]) in names
    assert ("ServiceAccount", pod()["serviceAccountName"]) in names
    [source] = containers()["agent"]["envFrom"]
    assert source == {"configMapRef": {"name": "settings"}}
    volumes = {item["name"] for item in pod()["volumes"]}
    volumes |= {item["metadata"]["name"] for item in spec["volumeClaimTemplates"]}
    mounted = {mount["name"] for item in containers().values() for mount in item["volumeMounts"]}
    assert mounted == volumes


def test_every_port_is_named_once_and_is_where_the_program_listens() -> None:
    ports = {
        port["name"]: port["containerPort"]
        for item in containers().values()
        for port in item.get("ports", ())
    }
    assert ports == {"status": 8080, "grpc": 8500, "rest": 8501}
    named = set(values_of(read_base(), "targetPort")) | set(values_of(pod(), "port"))
    assert named <= ports.keys()
    policy = find(read_base(), "NetworkPolicy")["spec"]["ingress"]
    assert set(values_of(policy, "port")) == ports.keys()
    environment = agent_environment()
    assert environment["RECONCILER_LISTEN"].endswith(f":{ports['status']}")
    assert environment["RECONCILER_SERVING"] == f"127.0.0.1:{ports['grpc']}"


def values_of(value: Any, key: str) -> Iterator[Any]:
    """Yield what stands at `key`, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from values_of(item, key)
    elif isinstance(value, dict):
        if key in value:
            yield value[key]
        for item in value.values():
            yield from values_of(item, key)


def test_every_setting_is_one_and_together_they_are_accepted() -> None:
    environment = agent_environment()
    assert {name for name in environment if name.startswith("RECONCILER_")} <= SETTINGS
    assert environment.keys() - SETTINGS == {"GOOGLE_APPLICATION_CREDENTIALS"}
    settings = load_settings({}, environment)
    assert (settings.node, str(settings.models_dir)) == ("pod-0", MODELS)
    [node] = [item for item in containers()["agent"]["env"] if item["name"] == "RECONCILER_NODE"]
    assert node["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_the_page_makes_every_file_of_the_secret_that_is_named() -> None:
    agent, page = containers()["agent"], (FOLDER / "README.md").read_text()
    [mount] = [item for item in agent["volumeMounts"] if item["name"] == "secrets"]
    folder = mount["mountPath"] + "/"
    named = {value for value in read_settings().values() if value.startswith(folder)}
    assert {f"{folder}{name}" for name in re.findall(r"--from-file=([\w.-]+)=", page)} == named
    [volume] = [item for item in pod()["volumes"] if item["name"] == "secrets"]
    assert f"create secret generic {volume['secret']['secretName']} " in page


def test_both_see_the_models_under_one_path_and_the_server_only_reads() -> None:
    mounts = {
        name: {mount["mountPath"]: mount for mount in item["volumeMounts"]}
        for name, item in containers().items()
    }
    assert mounts["first-config"].keys() == {MODELS}
    assert mounts["server"].keys() == {MODELS, "/tmp"}
    assert mounts["server"][MODELS]["readOnly"] is True
    for item in mounts.values():
        assert (item[MODELS]["name"], item[MODELS]["subPath"]) == ("data", "models")
    environment = agent_environment()
    assert environment["RECONCILER_MODELS_DIR"] == MODELS
    state = mounts["agent"][environment["RECONCILER_STATE_DIR"]]
    assert (state["name"], state["subPath"]) == ("data", "state")


def test_the_server_takes_every_flag() -> None:
    flags, unknown = parse_flags(containers()["server"]["args"])
    assert unknown == ()
    assert {name: getattr(flags, name) for name in MANDATORY_FLAGS} == MANDATORY_FLAGS
    assert (flags.port, flags.rest_api_port) == (8500, 8501)
    assert flags.model_config_file == f"{MODELS}/models.config"


def test_the_init_step_writes_a_config_with_no_model_and_leaves_one_that_is_there(
    tmp_path: Path,
) -> None:
    step = containers()["first-config"]
    [script] = step["args"]
    assert script.count(MODELS) == 1
    command = [*step["command"], script.replace(MODELS, str(tmp_path))]

    subprocess.run(command, check=True, timeout=20)
    file = tmp_path / "models.config"
    assert parse(file.read_text()) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["models.config"]

    file.write_text("model_config_list { config { name: 'ranker' } }")
    subprocess.run(command, check=True, timeout=20)
    assert "ranker" in file.read_text()


def test_probes_ask_the_agent_for_its_life_and_the_server_for_its_port() -> None:
    agent, server = containers()["agent"], containers()["server"]
    assert agent["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "status"}
    assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "status"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["tcpSocket"] == {"port": "grpc"}
    loading = server["startupProbe"]
    assert loading["periodSeconds"] * loading["failureThreshold"] >= 3600


def test_callers_learn_that_a_pod_goes_before_it_ends() -> None:
    [_, seconds] = containers()["server"]["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) < pod()["terminationGracePeriodSeconds"]


def test_no_container_may_do_more_than_it_needs() -> None:
    common = pod()["securityContext"]
    assert common["runAsNonRoot"] is True
    assert common["seccompProfile"] == {"type": "RuntimeDefault"}
    assert common["fsGroup"] == common["runAsGroup"] == 10001
    assert pod()["automountServiceAccountToken"] is False
    users = {}
    for name, item in containers().items():
        own = item["securityContext"]
        users[name] = own["runAsUser"]
        assert own["allowPrivilegeEscalation"] is False, name
        assert own["readOnlyRootFilesystem"] is True, name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert "memory" in item["resources"]["limits"], name
    assert users == {"first-config": 10001, "agent": 10001, "server": 10002}


def test_the_images_are_named_with_a_version() -> None:
    tags = {item["name"]: item["newTag"] for item in read_kustomization(GROUP)["images"]}
    assert {item["image"] for item in containers().values()} == tags.keys()
    assert tags["tfserving-reconciler"] == reconciler.__version__
    assert tags["tensorflow/serving"] == "2.20.0"


def test_everything_of_a_group_is_that_groups_alone(rendered: list[dict[str, Any]]) -> None:
    for item in rendered:
        assert item["metadata"]["namespace"] == "tfserving"
        assert item["metadata"]["name"].startswith("search-"), item["kind"]
        assert item["metadata"]["labels"][GROUP_LABEL] == "search"
    selectors = [
        *(item["spec"]["selector"] for item in rendered if item["kind"] == "Service"),
        find(rendered, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(rendered, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        find(rendered, "StatefulSet")["spec"]["selector"]["matchLabels"],
        *(item["matchLabels"] for item in values_of(rendered, "labelSelector")),
    ]
    labels = find(rendered, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert len(selectors) == 6 and all(item == labels for item in selectors), selectors
    assert labels[GROUP_LABEL] == "search"


def test_the_groups_on_the_page_are_groups() -> None:
    schema = json.loads((FOLDER.parents[1] / "schema" / "group.schema.json").read_text())
    blocks = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        jsonschema.validate(yaml.safe_load(block), schema)


def test_the_nodes_have_the_names_and_addresses_that_the_page_puts_into_git(
    rendered: list[dict[str, Any]],
) -> None:
    stateful = find(rendered, "StatefulSet")
    name, service = stateful["metadata"]["name"], stateful["spec"]["serviceName"]
    [headless] = [
        item
        for item in rendered
        if item["kind"] == "Service" and item["spec"].get("clusterIP") == "None"
    ]
    assert headless["metadata"]["name"] == service
    assert headless["spec"]["publishNotReadyAddresses"] is True
    page = (FOLDER / "README.md").read_text()
    for number in range(stateful["spec"]["replicas"]):
        line = f'- {{name: {name}-{number}, address: "{name}-{number}.{service}:8080"}}'
        assert line in page
