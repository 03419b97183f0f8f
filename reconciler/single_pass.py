"""One full pass of an agent and no more: what `reconciler once` does.

The same ticks as ever, until the node is as its commit says or nothing more is to be expected
without somebody's doing: a person's, the bucket's, the server's.
"""

import asyncio
import time

from reconciler.agent import Agent
from reconciler.model import Phase
from reconciler.pace import LAST_SECONDS
from reconciler.planning.outcome import SERVER_UNREACHABLE
from reconciler.planning.steps import Plan

_SERVER_PATIENCE_SECONDS = 10.0
"""How long a pass waits for a server that does not answer."""


async def run_once(agent: Agent, timeout_seconds: float) -> bool:
    """Make one full pass and return whether the node came to be as its commit says."""
    begun_at = time.monotonic()
    await agent.start()
    connection = asyncio.create_task(agent.keep_connection())
    try:
        await agent.watches.fetch_git()
        await agent.verify_installed()
        while True:
            was_known = agent.watches.git.desired is not None
            await agent.tick()
            await agent.watches.refresh()
            newest, passed_seconds = agent.plan, time.monotonic() - begun_at
            if passed_seconds > timeout_seconds:
                return False
            if newest is None:
                # Registries are asked once a commit was read, and may have it followed.
                is_news = not was_known and agent.watches.git.desired is not None
                if agent.watches.answered and not is_news:
                    return False
            elif _is_done(agent, newest, passed_seconds):
                git = agent.watches.git
                is_newest = git.trouble is None and git.unverified is None
                return newest.converged and is_newest
            await asyncio.sleep(LAST_SECONDS)
    finally:
        connection.cancel()


def _is_done(agent: Agent, newest: Plan, passed_seconds: float) -> bool:
    if newest.converged:
        return True
    if agent.is_busy or newest.in_motion or not agent.watches.answered:
        return False
    if any(o.reason == SERVER_UNREACHABLE for o in newest.outcomes):
        return passed_seconds > _SERVER_PATIENCE_SECONDS
    is_settling = newest.relist and any(o.phase is Phase.DEPLOYING for o in newest.outcomes)
    return not is_settling
