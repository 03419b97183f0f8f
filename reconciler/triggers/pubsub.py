"""A bucket's Pub/Sub notifications: an upload is seen at once instead of at the next listing.

A notification only makes a listing due; what is true is what the listing says. So a message is
acknowledged as soon as it is here, its order does not matter, and one that is lost, or went to
another node, costs no more than the wait for the next poll, which goes on unchanged.

A subscription hands each message to one of those who pull: two nodes with the same one each miss
what the other gets. So every node has its own, and no node has to pass anything on.
"""

import asyncio
import random
import re
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING

from reconciler.errors import ReconcilerError, SettingsError
from reconciler.model import Condition
from reconciler.planning.conditions import NOTIFICATIONS_READ
from reconciler.triggers.burst import Burst

if TYPE_CHECKING:
    from reconciler.triggers.subscription import Subscription

_NAME = re.compile(r"projects/[^/\s]+/subscriptions/[^/\s]+")
_MIN_GAP_SECONDS = 0.2
"""Between two pulls: during an upload a few answers of many messages, not many of one."""
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0
_JITTER = 0.1
_IDLE_EVENTS = {"OBJECT_METADATA_UPDATE"}
"""After which a listing says the same as before."""


def check_subscription(name: str) -> None:
    """Raise SettingsError where it can be seen beforehand that the subscription cannot work."""
    if _NAME.fullmatch(name) is None:
        raise SettingsError(
            f"pubsub_subscription: {name!r} is not of the form projects/PROJECT/subscriptions/NAME"
        )
    try:
        import google.pubsub_v1  # noqa: F401
    except ImportError:
        raise SettingsError(
            "pubsub_subscription is set and google-cloud-pubsub is not installed; install"
            " tfserving-reconciler[pubsub] or leave the setting out, sources are polled anyway"
        ) from None


def choose_wait_seconds(failures: int) -> float:
    """Return how long to wait after that many failures in a row."""
    wait_seconds = min(_FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10), _LONGEST_RETRY_SECONDS)
    return wait_seconds * random.uniform(1, 1 + _JITTER)  # noqa: S311 - spreads load


class Notifications:
    """Tells which sources an upload has changed.

    `find_sources` returns those of this node's that hold an object, by its URL; `wake_sources` is
    called with them, once for all the objects of an upload. `show` is told how it is, whenever
    that becomes another.
    """

    def __init__(
        self,
        subscription: "Subscription",
        find_sources: Callable[[str], Set[str]],
        wake_sources: Callable[[Set[str]], None],
        show: Callable[[Condition], None],
    ) -> None:
        self._subscription = subscription
        self._find_sources = find_sources
        self._wake_sources = wake_sources
        self._show = show
        self._failures = 0
        self._condition: Condition | None = None
        self._say(True, "Starting", "the bucket's notifications are being asked for")

    async def follow(self) -> None:
        """Pull for ever; after a trouble it is tried again, less and less often."""
        burst = Burst(self._wake_sources, asyncio.get_running_loop())
        try:
            while True:
                try:
                    await self._pull_for_ever(burst)
                except ReconcilerError as error:
                    self._failures += 1
                    self._say(False, error.reason, f"{error}; sources are polled meanwhile")
                finally:
                    await self._subscription.close()
                await asyncio.sleep(choose_wait_seconds(self._failures))
        finally:
            burst.close()

    async def _pull_for_ever(self, burst: Burst) -> None:
        while True:
            messages = await self._subscription.pull()
            self._failures = 0
            self._say(True, "AsExpected", "the bucket's notifications are read")
            for attributes in messages:
                burst.add(self._find_touched(attributes))
            await asyncio.sleep(_MIN_GAP_SECONDS)

    def _find_touched(self, attributes: Mapping[str, str]) -> Set[str]:
        bucket, name = attributes.get("bucketId"), attributes.get("objectId")
        if not bucket or not name or attributes.get("eventType") in _IDLE_EVENTS:
            return set()  # another topic's message, or nothing that a listing would show
        return self._find_sources(f"gs://{bucket}/{name}")

    def _say(self, holds: bool, reason: str, sentence: str) -> None:
        condition = Condition(NOTIFICATIONS_READ, holds, reason, sentence)
        if condition != self._condition:
            self._condition = condition
            self._show(condition)
