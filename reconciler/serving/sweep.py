"""What TensorFlow Serving says of all models of a node, asked for a share of them at a time.

Its status can be asked of one model only. It changes because this agent asks for something, and
then the models concerned are asked at every look; because the server restarts, which shows in the
connection, and then all of them are; or because somebody else meddles, which is found within a
round. So a look at 10,000 models at rest costs some hundred calls instead of all of them.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from reconciler.model import Served, VersionStatus
from reconciler.rotation import Rotation
from reconciler.serving.client import ServingClient


class Sweep:
    """The newest states of all models that somebody wants to know of."""

    def __init__(self, client: ServingClient, clock: Callable[[], float]) -> None:
        self._client = client
        self._rotation = Rotation(clock)
        self._served: Served | None = None

    async def look(self, models: Collection[str], urgent: Collection[str]) -> Served:
        """Return the states of `models`, those of the `urgent` ones and a share as they are now.

        What has not changed comes back as the same values. Raises ServingError when one of those
        that were asked is not answered.
        """
        if self._served is not None and self._served.connection != self._client.connection:
            self._served = None
        known = self._served.models if self._served else {}
        unknown = set(models) - known.keys()
        self._rotation.forget(unknown)
        asked = self._rotation.take(models, urgent)
        try:
            answer = await self._client.read(asked)
        except BaseException:  # a look that is cancelled has asked in vain, too
            self._rotation.forget(asked)
            raise
        self._served = _merge(known, answer, models)
        return self._served


def _merge(
    known: Mapping[str, Mapping[int, VersionStatus]], answer: Served, models: Collection[str]
) -> Served:
    changed = {name: seen for name, seen in answer.models.items() if known.get(name) != seen}
    merged = known
    if changed or known.keys() - set(models):
        merged = {name: seen for name, seen in known.items() if name in models} | changed
    return replace(answer, models=merged, fresh=frozenset(answer.models))
