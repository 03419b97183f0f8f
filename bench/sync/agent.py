"""What the agent does with a bucket that is new to it: list each model, fetch each version.

    python -m bench.sync.agent TARGET BUCKET PREFIX MODEL...

It is the agent's own code with the agent's own settings, all models at once as there; what is
missing is git before it and TensorFlow Serving after it. An agent runs all the time, so the clock
starts when this process has loaded what an agent has in memory, and says so.
"""

import asyncio
import sys
from pathlib import Path

from bench.sync.clock import wait_for_start
from reconciler.model import Query
from reconciler.settings import Settings
from reconciler.sources import gcs as gcs  # what a node with buckets has loaded long ago
from reconciler.sources.registry import Sources
from reconciler.store.store import Store


async def sync(target: Path, bucket: str, prefix: str, models: list[str]) -> None:
    """Bring version 1 of all models to `target`."""
    sources = Sources()
    store = Store(target, connections=Settings(repo="none").connections)

    async def bring(model: str) -> None:
        query = Query(f"gs://{bucket}/{prefix}/{model}", 1)
        source = await asyncio.to_thread(sources.open, query.source)
        listing = await asyncio.to_thread(source.list, query)
        await store.fetch(model, listing.snapshots[1], source)

    try:
        await asyncio.gather(*map(bring, models))
    finally:
        store.close()
        sources.close()


if __name__ == "__main__":
    wait_for_start()
    asyncio.run(sync(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
