"""What happens in a run, drawn from its seed before anything happens.

A round is a list of actions with pauses between them. All chance is in here: the same seed gives
the same actions in the same order, and a round does not depend on how the one before it ended.
What it does not fix is who wins a race; that is what many rounds are for.

Versions of a model are of four kinds, by number, so that `latest` is always a good one.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from tests.chaos.points import POINTS

_LEADING = 0.7
MODELS = ("ranker", "speller", "similar", "topics")
BROKEN, CRASHING, SLOW = 1, 2, 3
"""Fails to load; takes the server down while it loads; takes a second to load."""
FIRST_GOOD, LAST_GOOD = 4, 12
LABEL = "stable"

BUCKET_FAULTS = (
    *("late", "reset", "too many", "unavailable", "cut", "flip", "stall", "shorten"),
    *("longer", "drip", "garbage", "gone"),
)
GIT_FAULTS = ("late", "reset", "unavailable", "cut", "stall", "garbage", "gone", "drip")


@dataclass(frozen=True)
class Wish:
    """What git says of one model."""

    version: int | None
    """None: latest."""
    label: int | None = None
    stop: bool = False
    broken: bool = False
    """The file is no YAML: what it said before stays in force."""


Wishes = dict[str, Wish]


@dataclass(frozen=True)
class Change:
    """A commit; `back` commits are taken off the branch first, by force."""

    what: str
    wishes: Wishes = field(repr=False)
    back: int = field(default=0, repr=False)


@dataclass(frozen=True)
class Publish:
    """A new version of a model in the bucket."""

    model: str
    version: int


@dataclass(frozen=True)
class Weather:
    """From now on this share of the answers of `place` is spoilt in these ways."""

    place: str
    faults: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Kill:
    """kill -9 of the agent, now or at a named point, and of the one after it at another."""

    point: str = ""
    then: str = ""


@dataclass(frozen=True)
class KillServer:
    """kill -9 of the model server; it is started again."""


@dataclass(frozen=True)
class HangServer:
    """The model server stops to do anything for a while."""

    seconds: float


@dataclass(frozen=True)
class BadDisk:
    """Changes below a folder are refused."""

    error: str
    within: str
    share: float


@dataclass(frozen=True)
class FullDisk:
    """Not a byte is left on the file system."""


@dataclass(frozen=True)
class ReadOnly:
    """The models folder can be read only."""


@dataclass(frozen=True)
class Clock:
    """The wall clock jumps."""

    seconds: float


@dataclass(frozen=True)
class Rot:
    """A byte of an installed version turns into another on the disk."""

    model: str
    version: int


@dataclass(frozen=True)
class SpoilMirror:
    """The copy of git is damaged, so that git takes it for none."""


@dataclass(frozen=True)
class LockMirror:
    """A lock lies in the copy of git, as a killed git leaves it."""


@dataclass(frozen=True)
class Meanwhile:
    """Once the agent has died, and before the next one starts."""

    actions: "tuple[Action, ...]"


Action = (
    Change
    | Publish
    | Weather
    | Kill
    | KillServer
    | HangServer
    | BadDisk
    | FullDisk
    | ReadOnly
    | Clock
    | Rot
    | SpoilMirror
    | LockMirror
    | Meanwhile
)


@dataclass(frozen=True)
class Round:
    """Actions with the pause before each, and then so long until all faults end."""

    number: int
    actions: tuple[tuple[float, Action], ...]
    last_seconds: float


@dataclass
class Dice:
    """Draws the rounds of one seed, one after the other."""

    seed: int
    has_disk: bool
    """Whether there is a small disk to fill and to make read-only."""
    pace: float = 1.0
    wishes: Wishes = field(default_factory=dict)
    history: list[Wishes] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    """Model -> its highest version in the bucket."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.wishes = {model: Wish(FIRST_GOOD) for model in MODELS[:3]}
        self.history = [dict(self.wishes)]
        self.newest = dict.fromkeys(MODELS, LAST_GOOD)

    def first_kill(self) -> Kill:
        """Return where the agent is killed when it first starts on an empty machine."""
        return Kill(self._random.choice(POINTS))

    def throw(self) -> Iterator[Round]:
        """Yield rounds without end."""
        number = 0
        while True:
            number += 1
            kinds = [self._event] * self._random.choice([1, 2, 2, 3])
            kinds += [self._change] * self._random.choice([1, 1, 2, 3])
            self._random.shuffle(kinds)
            actions = [draw() for draw in kinds]
            if self._random.random() < _LEADING:
                # What goes wrong first, so that what the commits bring about leads there.
                actions.sort(key=lambda action: isinstance(action, Change))
            if any(isinstance(action, Weather) for action in actions):
                actions.append(self._note(self._fetch_something()))
            if any(wish.version == CRASHING for wish in self.wishes.values()):
                actions.append(self._way_back())
            paced = tuple((self._random.uniform(0, 0.6) * self.pace, item) for item in actions)
            yield Round(number, paced, self._random.uniform(0.3, 2.5) * self.pace)

    def sweep(self, kills: Iterable[Kill]) -> Iterator[Round]:
        """Yield a round for each kill, with commits that have the agent do all that it ever does.

        A bucket that answers late lets a commit come while what the one before it asked for is
        under way.
        """
        for number, kill in enumerate(kills, 1):
            ranker = self._with("pin", "ranker", Wish(self._other_than("ranker")))
            late = Weather("bucket", ("late",), 1.0)
            is_late = number % 2 == 0
            actions: list[Action] = [late] if is_late else []
            actions += [kill, self._note(ranker)]
            if "topics" in self.wishes:
                rest = {m: wish for m, wish in self.wishes.items() if m != "topics"}
                actions.append(self._note(Change("remove topics", rest)))
            else:
                actions.append(self._note(self._with("add", "topics", Wish(self._good()))))
            last = "ranker" if is_late else "speller"
            actions.append(self._note(self._with("pin", last, Wish(self._other_than(last)))))
            actions.append(Kill())
            yield Round(number, tuple((0.5, action) for action in actions), 1.0)

    def set_back(self, kills: Iterable[Kill]) -> Iterator[Round]:
        """Yield a round for each kill, after which the next agent finds that much has changed.

        What the one that died had fetched is no longer asked for, and what it relied on is damaged.
        The bucket answers late, so that the next one hears of the commit before it has gone on.
        """
        for number, kill in enumerate(kills, 1):
            before = Change("take topics back", dict(self.wishes))
            add = self._note(self._with("add", "topics", Wish(self._good())))
            rot = Rot("speller", self.wishes["speller"].version or self.newest["speller"])
            meanwhile = Meanwhile((self._note(before), rot, SpoilMirror()))
            actions = ((0.0, Weather("bucket", ("late",), 1.0)), (0.5, kill), (0.5, add))
            yield Round(number, (*actions, (0.0, meanwhile)), 5.0)

    def hinder(self, kills: Iterable[Kill]) -> Iterator[Round]:
        """Yield a round for each kill, in which a lock is in git's way, and no download can begin.

        The agent is killed at once, too, as the next one clears such a lock away when it starts.
        """
        for number, kill in enumerate(kills, 1):
            full = BadDisk("ENOSPC", "models/.staging", 1.0)
            ranker = self._note(self._with("pin", "ranker", Wish(self._other_than("ranker"))))
            actions = ((0.5, full), (0.5, kill), (0.5, Kill()), (0.0, LockMirror()), (0.5, ranker))
            yield Round(number, actions, 2.5)

    def _fetch_something(self) -> Change:
        model = self._random.choice(sorted(self.wishes))
        return self._with("pin", model, Wish(self._other_than(model)))

    def _other_than(self, model: str) -> int:
        """Return a good version that is not the one that is asked for."""
        there = self.wishes[model].version
        others = [v for v in range(FIRST_GOOD, LAST_GOOD + 1) if v != there]
        return self._random.choice(others)

    # --- commits ------------------------------------------------------------------------------

    def _change(self) -> Action:
        draws: tuple[tuple[int, Callable[[str], Change | None]], ...] = (
            (30, self._pin),
            (10, self._follow),
            (12, self._label),
            (10, self._revert),
            (8, self._add_or_remove),
            (6, self._stop_or_start),
            (6, self._break),
            (5, self._spoil),
            (5, self._force_back),
        )
        while True:
            (draw,) = self._random.choices([d for _, d in draws], [weight for weight, _ in draws])
            change = draw(self._random.choice(MODELS))
            if change is not None:
                break
        return self._note(change)

    def _note(self, change: Change) -> Change:
        self.wishes = change.wishes
        for _ in range(change.back):
            self.history.pop()
        if not change.back:
            self.history.append(dict(change.wishes))
        return change

    def _way_back(self) -> Change:
        """Take back what kills the server whenever it is tried: a fault that does not end."""
        mended = {
            model: Wish(FIRST_GOOD) if wish.version == CRASHING else wish
            for model, wish in self.wishes.items()
        }
        return self._note(Change("way back from what kills the server", mended))

    def _with(self, what: str, model: str, wish: Wish) -> Change:
        text = "latest" if wish.version is None else str(wish.version)
        text += f" {LABEL}={wish.label}" * bool(wish.label) + " stopped" * wish.stop
        return Change(f"{what} {model} {text}", {**self.wishes, model: wish})

    def _good(self) -> int:
        return self._random.randint(FIRST_GOOD, LAST_GOOD)

    def _pin(self, model: str) -> Change | None:
        return self._with("pin", model, Wish(self._good())) if model in self.wishes else None

    def _follow(self, model: str) -> Change | None:
        return self._with("follow", model, Wish(None)) if model in self.wishes else None

    def _label(self, model: str) -> Change | None:
        if model not in self.wishes:
            return None
        return self._with("label", model, Wish(self._good(), label=self._good()))

    def _revert(self, model: str) -> Change | None:
        if len(self.history) < 2:
            return None
        return Change("revert", dict(self.history[-2]))

    def _add_or_remove(self, model: str) -> Change | None:
        if model not in self.wishes:
            return self._with("add", model, Wish(self._good()))
        if len(self.wishes) < len(MODELS):
            return None  # never more than one away: what leaves at once is limited
        return Change(f"remove {model}", {m: w for m, w in self.wishes.items() if m != model})

    def _stop_or_start(self, model: str) -> Change | None:
        wish = self.wishes.get(model)
        if wish is None or wish.broken:
            return None
        return self._with("stop or start", model, replace(wish, stop=not wish.stop))

    def _break(self, model: str) -> Change | None:
        wish = self.wishes.get(model)
        return self._with("break", model, replace(wish, broken=True)) if wish else None

    def _spoil(self, model: str) -> Change | None:
        if model not in self.wishes:
            return None
        kind = self._random.choice([BROKEN, BROKEN, CRASHING, SLOW, SLOW])
        return self._with("spoil", model, Wish(kind))

    def _force_back(self, model: str) -> Change | None:
        back = self._random.randint(1, 2)
        if len(self.history) <= back:
            return None
        return Change(f"force back by {back}", dict(self.history[-1 - back]), back)

    # --- everything else ----------------------------------------------------------------------

    def _event(self) -> Action:
        draws: list[tuple[int, Callable[[], Action]]] = [
            (14, Kill),
            (24, lambda: Kill(self._random.choice(POINTS))),
            (20, lambda: self._weather("bucket", BUCKET_FAULTS)),
            (12, lambda: self._weather("git", GIT_FAULTS)),
            (6, KillServer),
            (6, lambda: HangServer(self._random.uniform(0.5, 3.0) * self.pace)),
            (10, self._disk),
            (6, lambda: Clock(self._random.choice([-1, 1]) * 10 ** self._random.uniform(2, 8))),
            (8, self._publish),
        ]
        if self.has_disk:
            draws += [(5, FullDisk), (5, ReadOnly)]
        (draw,) = self._random.choices([d for _, d in draws], [weight for weight, _ in draws])
        return draw()

    def _weather(self, place: str, faults: tuple[str, ...]) -> Action:
        chosen = tuple(self._random.sample(faults, self._random.randint(1, 3)))
        return Weather(place, chosen, self._random.choice([0.3, 0.6, 1.0]))

    def _disk(self) -> Action:
        error = self._random.choice(["ENOSPC", "EIO", "EROFS"])
        within = self._random.choice(["models", "state", ""])
        return BadDisk(error, within, self._random.choice([0.1, 0.5, 1.0]))

    def _publish(self) -> Action:
        model = self._random.choice(MODELS)
        self.newest[model] += 1
        return Publish(model, self.newest[model])
