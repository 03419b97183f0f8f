"""Since when each deployment has been Deployed as it is asked for, which later waves wait for."""

from collections.abc import Iterable
from dataclasses import replace

from reconciler.model import Outcome, Phase
from reconciler.planning.goals import fingerprint
from reconciler.planning.memory import Memory, ModelMemory

_BLINK_SECONDS = 5.0
"""For how long a server that does not answer is taken to be what it was: a status request's
deadline, and the tick after it."""


def time_deployed(
    outcomes: Iterable[Outcome], memory: Memory, now: float, *, is_blind: bool
) -> tuple[list[Outcome], Memory]:
    """Tell since when each deployment has been Deployed as it is asked for now.

    A server that is slow to answer now and then ends no pause between waves: while it `is_blind`
    the node says that it does not know, and soon after it goes on counting.
    """
    timed = []
    changed: dict[str, ModelMemory] = {}
    for outcome in outcomes:
        model = outcome.deployment.model
        known = memory.of(model)
        is_deployed = outcome.phase is Phase.DEPLOYED
        now_as = f"{fingerprint(outcome.deployment)} {outcome.wanted}" if is_deployed else ""
        is_blink = is_blind and now - memory.seen_at <= _BLINK_SECONDS
        if now_as != known.deployed_as and not is_blink:
            known = changed[model] = replace(known, deployed_as=now_as, deployed_since=now)
        since = known.deployed_since if is_deployed else None
        timed.append(replace(outcome, deployed_since=since))
    return timed, memory.with_models(changed)
