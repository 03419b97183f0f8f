"""From what is seen of a server and its successor to the next move: pure, one call at a time.

A replacement is never remembered as a list of steps left to do. Each look finds the two
containers as they are, which the label of the successor ties together, and one rule says what
comes next. So it does not matter which call failed, whether it took effect all the same, or at
which moment the agent ended: as long as one of the two can run, the last move leaves one running.

    open   stop the old one, start the new one, wait      (they may share ports of the host)
    good   remove the old one; the new one takes its name
    bad    stop the new one, start the old one, remove the new one
"""

from enum import Enum, auto

from reconciler.model import ServerSpec
from reconciler.supervision.container import REPLACES, Container, follows, is_connected

MAX_RESTARTS = 3
"""So often may a successor end by itself before it is given up."""


class Verdict(Enum):
    """What is known of the successor."""

    OPEN = auto()
    GOOD = auto()
    BAD = auto()


class Move(Enum):
    """One call to the engine, or none."""

    WAIT = auto()
    STOP_OLD = auto()
    START_OLD = auto()
    REMOVE_OLD = auto()
    STOP_NEW = auto()
    START_NEW = auto()
    REMOVE_NEW = auto()


def find_pair(containers: tuple[Container, ...]) -> tuple[Container, Container] | None:
    """Return a server and its successor, where that is what the two are."""
    if len(containers) != 2:
        return None
    first, second = containers
    for old, new in ((first, second), (second, first)):
        if new.labels.get(REPLACES) == old.id:
            return old, new
    return None


def judge(
    old: Container,
    new: Container,
    *,
    wanted: ServerSpec | None,
    serves: bool,
    is_overdue: bool,
) -> tuple[Verdict, str]:
    """Return what is to become of a successor, and in words what is wrong with it, if anything.

    `wanted` is what git says now, None where it is not to be followed or has failed before;
    `serves` whether the successor serves what was served.
    """
    if serves and new.is_running and not old.is_running:
        return Verdict.GOOD, ""
    is_given_up = new.has_run and not new.is_running and old.is_running
    is_what_git_wants = wanted is not None and follows(new, wanted, None)
    if not is_what_git_wants or is_given_up or not is_connected(new, old):
        return Verdict.BAD, ""
    if new.restarts >= MAX_RESTARTS:
        # Its exit code is there only between two tries.
        return Verdict.BAD, f"the server ended {new.restarts} times in a row"
    if new.has_run and not new.is_running:
        return Verdict.BAD, f"the server ended with code {new.exit_code}"
    if is_overdue:
        return Verdict.BAD, "it did not serve what was served in time"
    return Verdict.OPEN, ""


def next_move(old: Container, new: Container, verdict: Verdict) -> Move:
    """Return what brings the two nearer to being one."""
    match verdict:
        case Verdict.OPEN if old.is_running:
            return Move.STOP_OLD
        case Verdict.OPEN:
            return Move.WAIT if new.is_running else Move.START_NEW
        case Verdict.GOOD:
            return Move.STOP_OLD if old.is_running else Move.REMOVE_OLD
        case Verdict.BAD if new.is_running:
            return Move.STOP_NEW
        case Verdict.BAD:
            return Move.REMOVE_NEW if old.is_running else Move.START_OLD
