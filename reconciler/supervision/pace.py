"""How long is waited for what, around one container."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds; tests have shorter ones."""

    look_seconds: float = 5.0
    """Between two looks at the engine, and after one that failed."""
    soon_seconds: float = 0.1
    """To the next look after a move. Not at once: a move that changes nothing must not spin."""
    wait_seconds: float = 1.0
    """Between two looks at a successor that is to become ready."""
    ready_seconds: float = 900.0
    """How long a successor may take until it serves what was served."""
    restart_gap_seconds: float = 600.0
    """Between two restarts: one that did not help is not worth a break every few seconds."""
    pull_gap_seconds: float = 60.0
    """Between two tries to get an image."""
