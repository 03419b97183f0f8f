"""A model server in simulated time: the stepwise model of TensorFlow Serving, at a pace.

It polls its folders and does one thing (load one version, unload one) every half second, as long
as there is anything to do. What becomes of each version is noted, because it is what callers see.
"""

from dataclasses import dataclass, field

from reconciler.model import ServerConfig, State, VersionStatus
from tests.unit.serversim import ServerSim

STEP_SECONDS = 0.5
_QUIET_STEPS = 4
"""After so many steps in which nothing came of a poll, nothing will."""


@dataclass
class PacedServer(ServerSim):
    """A server that knows the time."""

    at_seconds: float = 0.0
    """Up to when it has come."""
    stalled_until_seconds: float = 0.0
    serving: dict[str, set[int]] = field(default_factory=dict)
    """Model -> the versions that answer."""
    lost: list[str] = field(default_factory=list)
    """Models of which the last version stopped to answer, until somebody takes the list."""
    quiet_steps: int = 0

    def advance(self, now: float) -> None:
        """Come to `now`."""
        while self.at_seconds + STEP_SECONDS <= now:
            if self.quiet_steps >= _QUIET_STEPS:
                self.at_seconds = now
                return
            self.at_seconds += STEP_SECONDS
            if self.at_seconds < self.stalled_until_seconds:
                continue
            self.quiet_steps += 1
            self.poll()
            self.tick()

    def reload(self, config: ServerConfig) -> None:
        """Take a config."""
        self.quiet_steps = 0
        super().reload(config)
        # A name that comes back before it was let go answers already: nobody waits for it.
        self.waiting -= {model for model, versions in self.serving.items() if versions}

    def start(self, config: ServerConfig, now: float) -> None:
        """Begin again from a config file."""
        self.serving, self.at_seconds, self.quiet_steps = {}, now, 0
        super().restart(config)
        self.lost.clear()

    def _publish(self, model: str, version: int, status: VersionStatus) -> None:
        self.quiet_steps = 0
        answering = self.serving.setdefault(model, set())
        if status.state is State.AVAILABLE:
            answering.add(version)
        elif version in answering:
            answering.discard(version)
            if not answering:
                self.lost.append(model)
        super()._publish(model, version, status)
