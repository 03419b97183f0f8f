"""Asks the buckets what a preview needs to know, and no more.

Changed deployments are listed as a node would list them. Sizes of the unchanged ones are in their
locks; where there is no lock they are listed only if a quota needs the sum.
"""

import asyncio
import time
from collections.abc import Iterable

from reconciler.model import Available, Deployment, Query, Unavailable
from reconciler.planning.goals import wanted_queries
from reconciler.planning.memory import ModelMemory
from reconciler.preview.pairs import Pair
from reconciler.sources.registry import Sources
from reconciler.sources.watch import BucketWatch

DEADLINE_SECONDS = 120.0
"""For all listings together; what has not answered by then is of unknown size."""


def find_queries(pairs: Iterable[Pair]) -> set[Query]:
    """Return what must be listed to tell what the pairs' nodes would do."""
    queries: set[Query] = set()
    for pair in pairs:
        for before, after in pair.changed.values():
            if after is not None:
                queries |= wanted_queries(after, {}, ModelMemory(), Available()).keys()
            if before is not None and before.named_version is None and not before.stop:
                queries.add(before.query)
        quota = pair.head.group.quota if pair.head.group else None
        if quota and (quota.disk_bytes is not None or quota.memory_bytes is not None):
            for deployment in (*pair.base.deployments, *pair.head.deployments):
                queries |= _find_unsized(deployment)
    return queries


def _find_unsized(deployment: Deployment) -> set[Query]:
    if deployment.lock or deployment.stop:
        return set()
    return set(wanted_queries(deployment, {}, ModelMemory(), Available()))


def list_all(queries: Iterable[Query], deadline_seconds: float = DEADLINE_SECONDS) -> Available:
    """Return the answers to all queries, several at once; one that fails is a trouble in it."""
    wanted = dict.fromkeys(queries, False)
    return asyncio.run(_list_all(wanted, deadline_seconds)) if wanted else Available()


async def _list_all(wanted: dict[Query, bool], deadline_seconds: float) -> Available:
    sources = Sources()
    watch = BucketWatch(
        sources,
        interval_seconds=deadline_seconds,
        recheck_seconds=deadline_seconds,
        clock=time.monotonic,
    )
    watch.want(wanted)
    try:
        async with asyncio.timeout(deadline_seconds):
            await watch.refresh()
    except TimeoutError:
        pass
    finally:
        sources.close()
    available = watch.available
    troubles = dict(available.troubles)
    for query in wanted.keys() - available.listings.keys() - troubles.keys():
        sentence = f"{query.source} was not listed within {deadline_seconds:g} s"
        troubles[query] = Unavailable("ListingFailed", sentence)
    return Available(available.listings, troubles)
