"""Has many nodes look at git and the buckets at once, and says which did not take it."""

import asyncio
from collections.abc import Iterable

from reconciler.fleet.poll import Target
from reconciler.status.access import OPEN_ACCESS, Access
from reconciler.status.client import StatusError, request_sync
from reconciler.threads import run_beside

_DEADLINE_SECONDS = 5.0
_MAX_ASKED_AT_ONCE = 200


async def sync_all(
    targets: Iterable[Target], token: str, access: Access = OPEN_ACCESS
) -> dict[Target, str | None]:
    """Return for each node why it did not take it, None where it did."""
    free = asyncio.Semaphore(_MAX_ASKED_AT_ONCE)

    async def sync(target: Target) -> str | None:
        address = target.address
        if address is None:
            return "nobody knows its address; write it in groups/"
        async with free:
            try:
                # A name server that does not answer is not held to the deadline of the request.
                async with asyncio.timeout(_DEADLINE_SECONDS + 1):
                    await run_beside(
                        lambda: request_sync(address, token, _DEADLINE_SECONDS, access),
                        f"sync {address}",
                    )
            except TimeoutError:
                return f"{address} was not found within {_DEADLINE_SECONDS:g} s"
            except StatusError as error:
                return str(error)
        return None

    asked = list(targets)
    return dict(zip(asked, await asyncio.gather(*map(sync, asked)), strict=True))
