"""Notifications of a bucket: from Pub/Sub's messages to a listing that is due at once."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Set
from pathlib import Path

import grpc
import pytest
import trustme

from reconciler.errors import SettingsError
from reconciler.model import Condition
from reconciler.triggers import burst, pubsub, subscription
from reconciler.triggers.pubsub import Notifications, check_subscription, choose_wait_seconds
from reconciler.triggers.subscription import Subscription
from tests.bucket import run_fake_gcs
from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.pubsub import (
    SUBSCRIPTION,
    Emulator,
    LocalPubSub,
    find_emulator,
    run_emulator,
    run_local,
    written,
)
from tests.tokens import run_issuer

RANKER = "gs://acme/ranker"
OTHER = "gs://acme/other"
WAIT_SECONDS = 20


def find_sources(url: str) -> set[str]:
    """Return the sources that hold an object, of a node that uses two."""
    return {source for source in (RANKER, OTHER) if url.startswith(source + "/")}


class Node:
    """What follows the notifications.

    `wakes` are the sources that it was woken for, `conditions` how it was with the notifications.
    """

    def __init__(self) -> None:
        self.wakes: list[Set[str]] = []
        self.conditions: list[Condition] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        notifications = Notifications(
            Subscription(SUBSCRIPTION), find_sources, self.wakes.append, self.conditions.append
        )
        self._task = asyncio.create_task(notifications.follow())

    async def wait(self, condition: Callable[[], object]) -> None:
        """Wait until something has come to be so."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                assert self._task is not None
                assert not self._task.done(), self._task
                await asyncio.sleep(0.01)

    @property
    def said(self) -> list[str]:
        """The reasons, one after the other."""
        return [condition.reason for condition in self.conditions]

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burst, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(pubsub, "_MIN_GAP_SECONDS", 0.01)
    monkeypatch.setattr(pubsub, "_FIRST_RETRY_SECONDS", 0.02)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    yield node
    await node.stop()


@pytest.fixture
async def local(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalPubSub]:
    async with run_local() as service:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.host)
        yield service


@pytest.fixture(scope="module")
def official() -> Iterator[Emulator]:
    program = find_emulator()
    if program is None:
        pytest.skip(
            "NOT TESTED against the official Pub/Sub emulator: it needs gcloud with the component"
            " pubsub-emulator, and java"
        )
    with run_emulator(program) as emulator:
        yield emulator


@pytest.fixture(params=["local", "official"])
def service(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> LocalPubSub | Emulator:
    service: LocalPubSub | Emulator = request.getfixturevalue(request.param)
    if isinstance(service, Emulator):
        service.start_subscription()
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", service.host)
    return service


async def test_the_files_of_one_upload_wake_once(local: LocalPubSub, node: Node) -> None:
    node.start()
    await local.publish([written(f"{RANKER}/42/assets/{number}") for number in range(500)])
    await node.wait(lambda: node.wakes)
    await local.publish([written(f"{OTHER}/1/saved_model.pb")])
    await node.wait(lambda: len(node.wakes) > 1)
    assert node.wakes == [{RANKER}, {OTHER}]


async def test_an_upload_wakes(service: LocalPubSub | Emulator, node: Node) -> None:
    node.start()
    await service.publish([written(f"{RANKER}/42/assets/{number}") for number in range(500)])
    await node.wait(lambda: node.wakes)
    await service.publish([written(f"{OTHER}/1/saved_model.pb")])
    await node.wait(lambda: OTHER in node.wakes[-1])
    assert RANKER in node.wakes[0]
    assert len(node.wakes) < 50, "the emulator may hand out one upload in several parts"


async def test_what_changes_nothing_here_does_not_wake(
    service: LocalPubSub | Emulator, node: Node
) -> None:
    node.start()
    await service.publish(
        [
            written("gs://acme/ranker-b/1/saved_model.pb"),
            written("gs://another/ranker/1/saved_model.pb"),
            written(f"{RANKER}/1/saved_model.pb", "OBJECT_METADATA_UPDATE"),
            {"some": "other topic's"},
            written(f"{OTHER}/1/saved_model.pb", "OBJECT_DELETE"),
        ]
    )
    await node.wait(lambda: node.wakes)
    assert node.wakes == [{OTHER}]


async def test_every_message_is_acknowledged_and_what_waited_is_taken(
    local: LocalPubSub, node: Node
) -> None:
    await local.publish([written(f"{RANKER}/42/{number}") for number in range(2500)])
    node.start()
    await node.wait(lambda: node.wakes)
    assert node.wakes == [{RANKER}]
    assert (len(local.acknowledged), local.waiting) == (2500, {})


async def test_messages_may_be_large(local: LocalPubSub, node: Node) -> None:
    """Who publishes decides what is in a notification; a thousand of them come at once."""
    metadata = {f"metadata{number}": "x" * 1000 for number in range(6)}
    await local.publish([written(f"{RANKER}/42/{number}") | metadata for number in range(1000)])
    node.start()
    await node.wait(lambda: node.wakes)
    assert node.wakes == [{RANKER}]
    assert (len(local.acknowledged), local.waiting) == (1000, {})


async def test_to_wait_in_vain_is_no_trouble(
    local: LocalPubSub, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "_PULL_SECONDS", 0.1)
    node.start()
    await node.wait(lambda: local.pulls > 3)
    await local.publish([written(f"{RANKER}/42/saved_model.pb")])
    await node.wait(lambda: node.wakes)
    assert node.said == ["Starting", "AsExpected"]
    assert all(condition.holds for condition in node.conditions)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.NOT_FOUND, "there is no such subscription; create it"),
        (grpc.StatusCode.PERMISSION_DENIED, "grant this node's service account roles/pubsub"),
        (grpc.StatusCode.UNAUTHENTICATED, "need credentials and this node's were refused"),
        (grpc.StatusCode.FAILED_PRECONDITION, "the subscription must be a pull one"),
        (grpc.StatusCode.UNAVAILABLE, "do not come: "),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "do not come: "),
    ],
)
async def test_a_trouble_is_said_once_and_gone_when_it_is(
    local: LocalPubSub, node: Node, code: grpc.StatusCode, words: str
) -> None:
    local.refusals = [code]
    node.start()
    await node.wait(lambda: local.pulls > 3)
    local.refusals = []
    await local.publish([written(f"{RANKER}/42/saved_model.pb")])
    await node.wait(lambda: node.wakes)
    _, trouble, again = node.conditions
    assert (trouble.name, trouble.holds) == ("NotificationsRead", False)
    assert f"the notifications of {SUBSCRIPTION}" in trouble.sentence
    assert words in trouble.sentence
    assert trouble.sentence.endswith("; sources are polled meanwhile")
    assert (again.holds, again.sentence) == (True, "the bucket's notifications are read")


async def test_another_trouble_is_said_too(local: LocalPubSub, node: Node) -> None:
    unavailable, missing = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND
    local.refusals = [unavailable, unavailable, missing, missing, unavailable]
    node.start()
    await node.wait(lambda: local.pulls > 5)
    assert node.said[:4] == ["Starting", "Unavailable", "NotFound", "Unavailable"]


def test_waits_grow_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub, "_FIRST_RETRY_SECONDS", 1.0)
    waits = [choose_wait_seconds(failures) for failures in (1, 2, 3, 6, 7, 1000)]
    for wait, shortest in zip(waits, (1, 2, 4, 32, 60, 60), strict=True):
        assert shortest <= wait <= shortest * 1.1


async def test_without_credentials_the_trouble_is_said(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "PUBSUB_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    node.start()
    await node.wait(lambda: len(node.conditions) > 1)
    assert "need credentials and there are none" in node.conditions[1].sentence
    assert node.wakes == []


_WITH_TLS = """
import asyncio, sys
from reconciler.triggers.pubsub import Notifications
from reconciler.triggers.subscription import Subscription

def wake(sources):
    print(*sources, flush=True)
    raise SystemExit

subscription = Subscription("projects/acme/subscriptions/node", sys.argv[1])
asyncio.run(Notifications(subscription, lambda url: {url}, wake, lambda _: None).follow())
"""


async def test_googles_own_endpoint_is_reached_with_tls_and_a_token(tmp_path: Path) -> None:
    # gRPC takes the roots that it trusts from the environment once, so this is another process.
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "roots.pem")
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    with run_issuer() as issuer:
        key = issuer.write_key(tmp_path / "key.json")
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(tmp_path / "roots.pem"),
            "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        }
        async with run_local(credentials) as service:
            await service.publish([written(f"{RANKER}/42/saved_model.pb")])
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", _WITH_TLS, service.host],
                env=environment,
                capture_output=True,
                timeout=60,
                check=False,
            )
        assert done.stdout.decode().strip() == f"{RANKER}/42/saved_model.pb", done.stderr.decode()
        assert set(service.bearers) == {f"Bearer {issuer.issued[0]}"}


@pytest.mark.parametrize(
    "name", ["node", "projects/acme/topics/models", "projects//subscriptions/"]
)
def test_a_name_of_the_wrong_form_is_a_bad_setting(name: str) -> None:
    with pytest.raises(SettingsError, match="projects/PROJECT/subscriptions/NAME"):
        check_subscription(name)


def test_without_the_package_the_setting_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_subscription(SUBSCRIPTION)
    monkeypatch.setitem(sys.modules, "google.pubsub_v1", None)
    with pytest.raises(SettingsError, match=r"install\s+tfserving-reconciler\[pubsub\]"):
        check_subscription(SUBSCRIPTION)


def test_a_bad_setting_ends_the_agent_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILER_REPO", "none")
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RECONCILER_PUBSUB_SUBSCRIPTION", "node")
    done = subprocess.run(
        [sys.executable, "-m", "reconciler.cli.main", "run"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "reconciler: pubsub_subscription: 'node' is not of the form" in done.stderr
    assert not (tmp_path / "state").exists()


async def test_an_agent_takes_a_version_long_before_its_bucket_is_polled(
    local: LocalPubSub, tmp_path: Path
) -> None:
    with run_fake_gcs() as endpoint:
        stage = Stage(
            tmp_path,
            endpoint,
            settings={
                "RECONCILER_BUCKET_INTERVAL": "1h",
                "RECONCILER_PUBSUB_SUBSCRIPTION": SUBSCRIPTION,
                "PUBSUB_EMULATOR_HOST": local.host,
            },
        )
        try:
            stage.publish("ranker", 1)
            stage.commit({"groups/g.yaml": GROUP}, deployment("ranker", "latest"))
            await asyncio.to_thread(stage.start)
            await asyncio.to_thread(stage.wait_served, "ranker", 1)
            stage.publish("ranker", 2)
            source = f"gs://{stage.bucket.name}/ranker"
            await local.publish([written(f"{source}/2/saved_model.pb")])
            await asyncio.to_thread(stage.wait_served, "ranker", 2)
            # What goes wrong is seen where everything else is, and polling goes on.
            found = await asyncio.to_thread(stage.condition, "NotificationsRead")
            assert (found["holds"], found["reason"]) == (True, "AsExpected")
            metric = 'reconciler_condition{condition="NotificationsRead"}'
            assert await asyncio.to_thread(stage.metric, metric) == 1.0
            local.refusals = [grpc.StatusCode.NOT_FOUND]
            await local.publish([written(f"{source}/2/other")])  # ends the question that is open
            await asyncio.to_thread(
                wait_until,
                lambda: stage.condition("NotificationsRead").get("reason") == "NotFound",
                "the trouble in /status",
            )
            assert await asyncio.to_thread(stage.metric, metric) == 0.0
            assert "NotificationsRead: the notifications of" in stage.log
            assert await asyncio.to_thread(stage.stop_agent) == 0
        finally:
            await asyncio.to_thread(stage.close)
