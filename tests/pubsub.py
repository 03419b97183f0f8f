"""Pub/Sub on 127.0.0.1: a server of a few lines, and the official emulator where it is installed.

Both speak gRPC by google-cloud-pubsub's own messages. The small one is always there, can refuse,
and knows what was acknowledged; the official one says what Google takes the service to be.
"""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import (
    AcknowledgeRequest,
    PublisherClient,
    PublishRequest,
    PubsubMessage,
    PullRequest,
    PullResponse,
    ReceivedMessage,
    SubscriberClient,
)
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from reconciler.demo.services import free_port

SUBSCRIPTION = "projects/acme/subscriptions/node"
_TOPIC = "projects/acme/topics/models"
_START_SECONDS = 60
_DEADLINE_SECONDS = 20


def written(url: str, event: str = "OBJECT_FINALIZE") -> dict[str, str]:
    """Return the attributes of the notification about one object, as Cloud Storage sends them."""
    bucket, _, name = url.removeprefix("gs://").partition("/")
    return {
        "notificationConfig": f"projects/_/buckets/{bucket}/notificationConfigs/1",
        "eventType": event,
        "payloadFormat": "NONE",
        "bucketId": bucket,
        "objectId": name,
        "objectGeneration": "1760000000000000",
    }


class LocalPubSub:
    """One subscription of a small server in this event loop."""

    def __init__(self) -> None:
        self.host = ""
        self.refusals: list[grpc.StatusCode] = []
        """What the next pulls are answered with; the last one for ever, until it is taken out."""
        self.waiting: dict[str, Mapping[str, str]] = {}
        self.acknowledged: list[str] = []
        self.pulls = 0
        self.bearers: list[str | None] = []
        self._count = 0
        self._changed = asyncio.Condition()

    async def publish(self, messages: Sequence[Mapping[str, str]]) -> None:
        """Send messages with these attributes."""
        async with self._changed:
            for attributes in messages:
                self._count += 1
                self.waiting[f"ack-{self._count}"] = attributes
            self._changed.notify_all()

    async def pull(self, request: PullRequest, context: Any) -> PullResponse:
        """Answer once there is a message, as the service does."""
        self.pulls += 1
        self.bearers.append(dict(context.invocation_metadata()).get("authorization"))
        assert request.subscription == SUBSCRIPTION
        if self.refusals:
            code = self.refusals[0] if len(self.refusals) == 1 else self.refusals.pop(0)
            await context.abort(code, "made up")
        async with self._changed:
            await self._changed.wait_for(lambda: self.waiting)
            taken = list(self.waiting.items())[: request.max_messages]
        return PullResponse(
            received_messages=[
                ReceivedMessage(ack_id=ack_id, message=PubsubMessage(attributes=attributes))
                for ack_id, attributes in taken
            ]
        )

    async def acknowledge(self, request: AcknowledgeRequest, context: Any) -> Empty:
        """Forget messages."""
        for ack_id in request.ack_ids:
            del self.waiting[ack_id]
            self.acknowledged.append(ack_id)
        return Empty()


@contextlib.asynccontextmanager
async def run_local(
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[LocalPubSub]:
    """Run the small server."""
    service = LocalPubSub()
    server = grpc.aio.server()
    handlers = {
        "Pull": grpc.unary_unary_rpc_method_handler(
            service.pull, PullRequest.deserialize, PullResponse.serialize
        ),
        "Acknowledge": grpc.unary_unary_rpc_method_handler(
            service.acknowledge, AcknowledgeRequest.deserialize, Empty.SerializeToString
        ),
    }
    name = "google.pubsub.v1.Subscriber"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    service.host = f"localhost:{port}" if credentials else f"127.0.0.1:{port}"
    await server.start()
    try:
        yield service
    finally:
        await server.stop(None)


class Emulator:
    """The official emulator."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._channel = grpc.insecure_channel(host)

    def start_subscription(self) -> None:
        """Make the topic and the subscription anew."""
        publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))
        with contextlib.suppress(Exception):
            subscriber.delete_subscription(subscription=SUBSCRIPTION, timeout=_DEADLINE_SECONDS)
        with contextlib.suppress(Exception):
            publisher.create_topic(name=_TOPIC, timeout=_DEADLINE_SECONDS)
        subscriber.create_subscription(name=SUBSCRIPTION, topic=_TOPIC, timeout=_DEADLINE_SECONDS)

    async def publish(self, messages: Sequence[Mapping[str, str]]) -> None:
        """Send messages with these attributes."""
        publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        request = PublishRequest(
            topic=_TOPIC, messages=[PubsubMessage(attributes=item) for item in messages]
        )
        await asyncio.to_thread(publisher.publish, request, timeout=_DEADLINE_SECONDS)

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()


def find_emulator() -> Path | None:
    """Return the program of the official emulator, where the Cloud SDK has it."""
    gcloud = shutil.which("gcloud")
    if gcloud is None or shutil.which("java") is None:
        return None
    root = Path(gcloud).resolve().parents[1]
    program = root / "platform/pubsub-emulator/bin/cloud-pubsub-emulator"
    return program if program.exists() else None


@contextlib.contextmanager
def run_emulator(program: Path) -> Iterator[Emulator]:
    """Start the official emulator and stop it."""
    port = free_port()
    command = [str(program), "--host=127.0.0.1", f"--port={port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_up(port, process)
            emulator = Emulator(f"127.0.0.1:{port}")
            yield emulator
            emulator.close()
        finally:
            process.kill()


def _wait_until_up(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the Pub/Sub emulator does not answer: {error}") from error
            time.sleep(0.05)
