"""Makes a load last as long as that of a tiny model does in the real server.

Not for show: versions are scheduled one per tick, and the server is up when the loads that were
scheduled until the first of them ended are done. Loads that took no time at all would leave the
second version of a model unloaded at that moment, and a label for it refused. A load that fails
is as quick as it is.
"""

import time
from dataclasses import dataclass, field

from reconciler.standin.loader import LoadedModel
from reconciler.standin.manager import ModelLoader

# TensorFlow sets itself up in the first loads of a process.
_FIRST_LOADS_FACTOR = 3.0


@dataclass(slots=True)
class PacedLoader:
    """A loader whose loads take at least `seconds`."""

    loader: ModelLoader
    seconds: float
    _is_warm: bool = field(default=False, init=False)

    def estimate(self, path: str) -> None:
        """Look at every file."""
        self.loader.estimate(path)

    def load(self, path: str) -> LoadedModel:
        """Load, and sleep for what is left of the time that it should take."""
        end = time.monotonic() + self.seconds * (1.0 if self._is_warm else _FIRST_LOADS_FACTOR)
        model = self.loader.load(path)
        time.sleep(max(0.0, end - time.monotonic()))
        self._is_warm = True
        return model
