"""One Pub/Sub subscription, asked through Google's own client, its troubles said in sentences.

Messages are pulled, one question at a time, each with a deadline: a node needs no way in for them,
and there is no stream whose silent end would have to be noticed.
"""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import grpc
from google.api_core.exceptions import (
    DeadlineExceeded,
    FailedPrecondition,
    Forbidden,
    GoogleAPICallError,
    GoogleAPIError,
    NotFound,
    Unauthorized,
)
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError

from reconciler.errors import ReconcilerError
from reconciler.sources.gcs_access import find_credentials
from reconciler.sources.gcs_trouble import quote
from reconciler.threads import run_beside

if TYPE_CHECKING:
    from google.pubsub_v1 import SubscriberAsyncClient

SCOPE = "https://www.googleapis.com/auth/pubsub"
GOOGLES = "pubsub.googleapis.com:443"

_PULL_SECONDS = 60.0
"""How long one question waits for a message; the service itself would end it after 90 s."""
_ACK_SECONDS = 10.0
_MAX_MESSAGES = 1000
_CHANNEL_OPTIONS = (("grpc.max_receive_message_length", 64 * 1024 * 1024),)
"""gRPC's own limit is 4 MiB. A thousand notifications with an object's metadata in each are more,
and an answer that is refused is never acknowledged and comes again for ever."""


class SubscriptionError(ReconcilerError):
    """Nothing comes from the subscription for now; the reason is the gRPC code's name."""

    reason = "SubscriptionFailed"


class Subscription:
    """The messages of one subscription. Belongs to one event loop.

    PUBSUB_EMULATOR_HOST is honoured as everywhere, and then nothing is signed. `endpoint`, as
    host:port, stands in for Google's and is reached with TLS and credentials.
    """

    def __init__(self, name: str, endpoint: str = GOOGLES) -> None:
        self._name = name
        self._endpoint = endpoint
        self._client: SubscriberAsyncClient | None = None

    async def pull(self) -> Sequence[Mapping[str, str]]:
        """Wait for messages and return their attributes; none where none came for a minute.

        They are acknowledged: what is lost from here on, the next poll sees. Raises
        SubscriptionError, and SourceError where this node's credentials cannot be used.
        """
        if self._client is None:
            self._client = await self._open()
        client = self._client
        try:
            answer = await client.pull(
                subscription=self._name,
                max_messages=_MAX_MESSAGES,
                timeout=_PULL_SECONDS,
                retry=None,
            )
            received = answer.received_messages
            if received:
                await client.acknowledge(
                    subscription=self._name,
                    ack_ids=[item.ack_id for item in received],
                    timeout=_ACK_SECONDS,
                    retry=None,
                )
        except DeadlineExceeded:
            return []
        except (GoogleAPIError, GoogleAuthError, grpc.RpcError) as error:
            raise _explain(self._name, error) from error
        return [dict(item.message.attributes) for item in received]

    async def close(self) -> None:
        """Let go of the channel and the credentials; the next pull looks for both anew."""
        client, self._client = self._client, None
        if client is not None:
            await client.transport.close()  # type: ignore[no-untyped-call]

    async def _open(self) -> "SubscriberAsyncClient":
        from google.pubsub_v1 import SubscriberAsyncClient
        from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

        emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
        if emulator:
            channel = grpc.aio.insecure_channel(emulator, _CHANNEL_OPTIONS)
        else:
            credentials = await run_beside(lambda: find_credentials(SCOPE), "credentials")
            if isinstance(credentials, AnonymousCredentials):
                raise SubscriptionError(
                    f"the notifications of {self._name} need credentials and there are none; give"
                    " this node a service account with roles/pubsub.subscriber on it",
                    "Unauthenticated",
                )
            channel = SubscriberGrpcAsyncIOTransport.create_channel(
                self._endpoint, credentials=credentials, options=_CHANNEL_OPTIONS
            )
        return SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))


def _explain(name: str, error: Exception) -> SubscriptionError:
    doing = f"the notifications of {name}"
    if isinstance(error, NotFound):
        text = (
            f"{doing} cannot be had: there is no such subscription; create it with `gcloud pubsub"
            " subscriptions create`, one for each node"
        )
    elif isinstance(error, Forbidden):
        text = f"{doing} are forbidden; grant this node's service account roles/pubsub.subscriber"
    elif isinstance(error, Unauthorized | GoogleAuthError):
        text = f"{doing} need credentials and this node's were refused: {quote(error)}"
    elif isinstance(error, FailedPrecondition):
        text = f"{doing} cannot be pulled: {quote(error)}; the subscription must be a pull one"
    else:
        text = f"{doing} do not come: {quote(error)}"
    code = error.grpc_status_code if isinstance(error, GoogleAPICallError) else None
    reason = code.name.title().replace("_", "") if code else SubscriptionError.reason
    return SubscriptionError(text, reason)
