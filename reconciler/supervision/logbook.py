"""What is known and said of one container: the last sight of its server, notes, words for others.

Two readers have to be told: people, by the condition ServerSupervised, and the other nodes of the
group, by a standing (planning/server_turns.py). A standing is about one thing that git asked; as
soon as git asks another it says no more than that the node is not there yet, for a node that
comes later must not take an old word for the answer to a new question.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.model import Condition, ServerSpec
from reconciler.planning.conditions import SERVER_SUPERVISED
from reconciler.planning.peers import ServerStanding, ServerState, ask_of_server
from reconciler.planning.supervision import ServerSight
from reconciler.supervision import words
from reconciler.supervision.notes import Notes, load_notes, save_notes


@dataclass(frozen=True, slots=True)
class _Stand:
    spec: ServerSpec | None
    state: ServerState
    sentence: str
    awaits_turn: bool


class Logbook:
    """Kept by whoever works on the container."""

    def __init__(self, notes_file: Path, wake: Callable[[], None]) -> None:
        """`wake` is called when the tick should tell something new."""
        self._notes_file = notes_file
        self._wake = wake
        self._connection: int | None = None
        self._old_connection: int | None = None
        self._stand = _Stand(None, ServerState.PENDING, words.STARTING.sentence, awaits_turn=False)
        self.notes = load_notes(notes_file)
        self.sight: ServerSight | None = None
        self.condition = words.STARTING

    # --- what is seen ---------------------------------------------------------------------------

    def note_sight(self, sight: ServerSight) -> bool:
        """Take what a tick has seen of the server; return whether it is other than before."""
        is_news = sight != self.sight
        self.sight = sight
        if sight.connection is not None:
            self._connection = sight.connection
        return is_news

    def note_old_server(self) -> None:
        """Take what was seen until now as seen of a server that is gone."""
        self._old_connection = self._connection

    def note_same_server(self) -> None:
        """Take it back: the server that was to go is the one that runs."""
        self._old_connection = None

    def is_of_now(self, sight: ServerSight) -> bool:
        """Whether this was seen of the server as it runs now, and not of the one before."""
        return sight.connection not in (None, self._old_connection)

    # --- what is kept ---------------------------------------------------------------------------

    def note_down(self, notes: Notes) -> None:
        """Keep the notes on disk."""
        if notes != self.notes:
            self.notes = notes
            save_notes(self._notes_file, notes)

    # --- what is said ---------------------------------------------------------------------------

    def say_well(self, sentence: str) -> None:
        """Say that nothing is to be done."""
        self.say(True, "AsExpected", sentence)

    def say(self, holds: bool, reason: str, sentence: str) -> None:
        """Say how the container is."""
        self.show(Condition(SERVER_SUPERVISED, holds, reason, sentence))

    def show(self, condition: Condition) -> None:
        """Make this the condition, at once where it is another than before."""
        if (condition.holds, condition.reason) != (self.condition.holds, self.condition.reason):
            self._wake()
        self.condition = condition

    def stand(
        self,
        spec: ServerSpec | None,
        state: ServerState,
        sentence: str | None = None,
        *,
        awaits_turn: bool = False,
    ) -> None:
        """Tell the other nodes how far this one is with `spec`; the condition's sentence if none.

        With `awaits_turn` they are asked how far they are.
        """
        stand = _Stand(spec, state, sentence or self.condition.sentence, awaits_turn)
        if (stand.state, stand.awaits_turn) != (self._stand.state, self._stand.awaits_turn):
            self._wake()
        self._stand = stand

    @property
    def standing(self) -> ServerStanding:
        """What the other nodes are told."""
        wanted, stand = self.sight.wanted if self.sight else None, self._stand
        is_current = self.sight is not None and stand.spec == wanted
        if is_current or stand.state is ServerState.REPLACING:
            return ServerStanding(ask_of_server(wanted), stand.state, stand.sentence)
        return ServerStanding(ask_of_server(wanted), ServerState.PENDING, self.condition.sentence)

    @property
    def awaits_turn(self) -> bool:
        """Whether the other nodes have to be asked."""
        return self._stand.awaits_turn
