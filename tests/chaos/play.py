"""Plays a script against a real node and holds it against what is promised, round by round.

Around the agent stand real git over http, fake-gcs-server, both behind proxies that spoil answers,
and the stand-in server. The player is what an orchestrator is: it starts again what has died. At
the end of each round all faults end, and the node has to come to rest by itself as the newest
commit says.
"""

import errno
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bucket import read_files
from tests.callers import asking
from tests.chaos.callers import Caller
from tests.chaos.disk import SmallDisk, mount_small_disk
from tests.chaos.judge import BrokenError, Judge, Lines, list_versions
from tests.chaos.recording_server import sum_up
from tests.chaos.script import (
    BROKEN,
    CRASHING,
    FIRST_GOOD,
    LAST_GOOD,
    MODELS,
    SLOW,
    Action,
    BadDisk,
    Change,
    Clock,
    Dice,
    FullDisk,
    HangServer,
    Kill,
    KillServer,
    LockMirror,
    Meanwhile,
    Publish,
    ReadOnly,
    Rot,
    Round,
    SpoilMirror,
    Weather,
    Wish,
    Wishes,
)
from tests.chaos.script import LABEL as STABLE
from tests.chaos.weather import Sky, run_skies
from tests.e2e.stage import GROUP, Stage
from tests.gitserver import git, serve_http
from tests.savedmodels import write_savedmodel

CONVERGE_SECONDS = 60.0
SLACK = 3.0
"""For machines that are slower than ours: a promise about seconds is no test of the machine."""
_AGENT = [sys.executable, "-m", "tests.chaos.unlucky_agent", "run"]
_SERVER = (sys.executable, "-m", "tests.chaos.recording_server")
_RESTART_SECONDS = 0.2
_HEARD_SECONDS = 0.2
"""After which an agent has read that nothing is to go wrong any more."""
_DEATH_SECONDS = 10.0
"""After which an agent that did not come to the point of its death is killed where it is."""
_SETTINGS_FAILED = 2
_OWN = "assets/own"
"""A file that no two versions share."""
_OWN_BYTES = 40_000


@dataclass
class Figures:
    """What a run came to."""

    rounds: int = 0
    commits: int = 0
    kills: int = 0
    server_deaths: int = 0
    converge_seconds: list[float] = field(default_factory=list)


@dataclass
class Player:
    """One run."""

    seed: int
    stage: Stage
    bucket_sky: Sky
    git_sky: Sky
    disk: SmallDisk
    judge: Judge
    callers: dict[str, Caller]
    say: Callable[[str], None]
    figures: Figures = field(default_factory=Figures)
    history: list[str] = field(default_factory=list)
    """Every action so far, for the one who has to repeat it."""
    _wishes: Wishes = field(default_factory=dict)
    _asked: list[Wishes] = field(default_factory=list)
    """What the commits since the node was last at rest said, and the one it rests on."""
    _texts: dict[str, str] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODELS, LAST_GOOD))
    _rotten: set[tuple[str, int]] = field(default_factory=set)
    """Installed versions that were damaged and have to be mended before the node is at rest."""
    _control: dict[str, Any] = field(default_factory=dict)
    _next_point: str = ""
    """Where the agent is killed that comes after the one that is killed next."""
    _agent_dies: bool = False
    _is_killed: bool = False
    _agent_may_refuse: bool = False
    _begun_at: float = field(default_factory=time.monotonic)

    # --- a run --------------------------------------------------------------------------------

    def begin(self, wishes: Wishes, kill: Kill) -> None:
        """Publish everything, commit the first wishes and wait until they are served."""
        self._note(f"begin, with {kill}")
        self._do(kill)
        for model in MODELS:
            self._publish(model, BROKEN, fault="truncated_graph")
            self._publish(model, CRASHING, script={"crash": True})
            self._publish(model, SLOW, script={"delay_seconds": 1.0})
            for version in range(FIRST_GOOD, LAST_GOOD + 1):
                self._publish(model, version)
        self._commit(Change("begin", dict(wishes)))
        self._start_agent()
        self._come_to_rest()
        self._calm_down()
        self._come_to_rest()

    def play(self, item: Round) -> None:
        """Play one round; raises BrokenError."""
        self._agent_dies = self._agent_may_refuse = False
        self._note(f"round {item.number}")
        for pause_seconds, action in item.actions:
            self._pass_time(pause_seconds)
            self._note(f"  +{pause_seconds:.2f} s {action}")
            self._do(action)
        self._pass_time(item.last_seconds)
        self._calm_down()
        self._come_to_rest()
        self.figures.rounds += 1

    def _do(self, action: Action) -> None:
        match action:
            case Change():
                self._commit(action)
            case Publish(model, version):
                self._publish(model, version)
                self._newest[model] = version
                # A `latest` may take it from now on, as one commit more would have it.
                self._asked.append(self._wishes)
            case Weather(place):
                (self.bucket_sky if place == "bucket" else self.git_sky).turn(action)
            case Kill(""):
                self._kill_agent()
            case Kill(point, then):
                self._next_point = then
                self._say_to_agent(die_at=point)
                self._agent_dies = True
            case KillServer():
                self._lose_server()
                self.stage.kill_server()
            case HangServer(seconds):
                self._hang_server(seconds)
            case BadDisk(error, within, share):
                self._agent_may_refuse = True
                self._say_to_agent(errno=getattr(errno, error), within=within, share=share)
            case FullDisk():
                self._agent_may_refuse = True
                self.disk.fill()
            case ReadOnly():
                self._agent_may_refuse = True
                self.disk.forbid(self.stage.models_dir)
            case Clock(seconds):
                self._say_to_agent(clock_seconds=seconds)
            case Rot(model, version):
                self._rot(model, version)
            case SpoilMirror():
                (self._mirror / "HEAD").unlink()
            case LockMirror():
                (self._mirror / "packed-refs.lock").touch()
            case Meanwhile(actions):
                self._await_death()
                for each in actions:
                    self._do(each)

    # --- what is done to the node ---------------------------------------------------------------

    @property
    def _mirror(self) -> Path:
        return self.disk.folder / "state" / "mirror"

    def _publish(self, model: str, version: int, script: Any = None, **options: Any) -> None:
        folder = self.stage.folder / "exports" / f"{model}-{version}"
        write_savedmodel(folder, version * 10, **options)
        # What all versions have in common is linked and not fetched; this has to be fetched.
        (folder / _OWN).parent.mkdir(exist_ok=True)
        own = random.Random(f"{model} {version}").randbytes(_OWN_BYTES)
        (folder / _OWN).write_bytes(own)
        if script is not None:
            (folder / "standin.json").write_text(json.dumps(script))
        self.stage.bucket.put_version(str(version), read_files(folder), under=model)
        self.judge.published[model, version] = sum_up(folder)

    def _commit(self, change: Change) -> None:
        for model, caller in self.callers.items():
            before, after = self._wishes.get(model), change.wishes.get(model)
            if caller.is_due and (after is None or (after.stop and not after.broken)):
                caller.is_due = False
            if before is not None and after is not None and after.broken and before.stop:
                caller.is_due = False
        if change.back:
            git("reset", "--quiet", "--hard", f"HEAD~{change.back}", cwd=self.stage.remote.work)
            self.stage.remote.push("--force")
            # What the commits that are gone asked for stays asked until the node rests.
        else:
            self._write(change.wishes)
            self.stage.remote.commit({}, change.what)
        self.figures.commits += 1
        self._wishes = change.wishes
        self._asked.append(change.wishes)
        self._tell_callers()

    def _write(self, wishes: Wishes) -> None:
        work = self.stage.remote.work
        (work / "deployments" / "g").mkdir(parents=True, exist_ok=True)
        (work / "groups").mkdir(exist_ok=True)
        (work / "groups" / "g.yaml").write_text(GROUP)
        for model in MODELS:
            file = work / "deployments" / "g" / f"{model}.yaml"
            wish = wishes.get(model)
            if wish is None:
                file.unlink(missing_ok=True)
            else:
                file.write_text(self._render(model, wish))

    def _render(self, model: str, wish: Wish) -> str:
        fields: dict[str, Any] = {"source": f"gs://{self.stage.bucket.name}/{model}"}
        fields["version"] = wish.version or "latest"
        if wish.label:
            fields["labels"] = {STABLE: wish.label}
        if wish.stop:
            fields["stop"] = True
        return json.dumps(fields) + ("\n}{ what is this" if wish.broken else "\n")

    def _say_to_agent(self, **words: Any) -> None:
        self._control |= words
        path = self.stage.folder / "control.json"
        path.with_suffix(".new").write_text(json.dumps(self._control))
        path.with_suffix(".new").rename(path)

    def _start_agent(self) -> None:
        self.stage.start_agent(
            _AGENT,
            CHAOS_FOLDER=str(self.disk.folder),
            CHAOS_CONTROL=str(self.stage.folder / "control.json"),
            CHAOS_JOURNAL=str(self.judge.journal.path),
            CHAOS_REST_PORT=str(self.stage.rest_port),
            CHAOS_SEED=str(self.seed),
        )

    def _kill_agent(self) -> None:
        agent = self.stage.agent
        if agent is not None and agent.poll() is None:
            self._agent_dies = self._is_killed = True
            agent.kill()

    def _await_death(self) -> None:
        """Wait until no agent runs; the next one is started by whoever looks after it then."""
        agent, deadline = self.stage.agent, time.monotonic() + _DEATH_SECONDS
        while agent is not None and agent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._kill_agent()
        if agent is not None:
            agent.wait(_DEATH_SECONDS)

    def _rot(self, model: str, version: int) -> None:
        with (self.stage.models_dir / model / str(version) / _OWN).open("r+b") as file:
            (byte,) = file.read(1)
            file.seek(0)
            file.write(bytes([byte ^ 1]))
        self._rotten.add((model, version))

    def _hang_server(self, seconds: float) -> None:
        server = self.stage.server
        if server is not None and server.poll() is None:
            server.send_signal(signal.SIGSTOP)
            self._pass_time(seconds)
            server.send_signal(signal.SIGCONT)

    def _lose_server(self) -> None:
        self.figures.server_deaths += 1
        for caller in self.callers.values():
            caller.is_due = False

    # --- the orchestrator -------------------------------------------------------------------------

    def _pass_time(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._look_after()
            time.sleep(0.02)

    def _look_after(self) -> None:
        """Start again what has died; raise what died of itself, and what callers were refused."""
        agent, server = self.stage.agent, self.stage.server
        if agent is not None and agent.poll() is not None:
            refused = agent.returncode == _SETTINGS_FAILED and self._agent_may_refuse
            if not refused and not (self._agent_dies and agent.returncode == -signal.SIGKILL):
                raise BrokenError(f"the agent ended by itself with code {agent.returncode}")
            self.figures.kills += not refused
            if not self._is_killed:  # else the point is still to come, maybe at the start
                self._control.pop("die_at", None)
                if self._next_point:
                    self._control["die_at"], self._next_point = self._next_point, ""
            self._is_killed = False
            self._say_to_agent()
            time.sleep(_RESTART_SECONDS)
            self._start_agent()
        crashes = any(w.version == CRASHING for wishes in self._asked for w in wishes.values())
        if server is None or server.poll() is not None:
            if server is not None and not crashes:
                raise BrokenError(f"the model server ended by itself with {server.returncode}")
            if server is not None:
                self._lose_server()
                self.stage.server = None
            if self.stage.config_file.exists():
                self.stage.start_server()
        if crashes:  # it takes the server down whenever it is tried
            for caller in self.callers.values():
                caller.is_due = False
        failures = [text for caller in self.callers.values() for text in caller.failures]
        if failures:
            raise BrokenError(f"callers were refused: {'; '.join(failures[:3])}")

    def _calm_down(self) -> None:
        self.bucket_sky.turn(None)
        self.git_sky.turn(None)
        self.disk.heal()
        self._control.clear()
        self._next_point = ""
        self._say_to_agent()
        self._pass_time(_HEARD_SECONDS)

    # --- at rest ------------------------------------------------------------------------------

    def _come_to_rest(self) -> None:
        begun_at = time.monotonic()
        while lack := self._find_lack():
            self._look_after()
            if time.monotonic() > begun_at + CONVERGE_SECONDS * SLACK:
                raise BrokenError(f"not at rest {CONVERGE_SECONDS * SLACK:g} s after: {lack}")
            time.sleep(0.05)
        took_seconds = time.monotonic() - begun_at
        self.figures.converge_seconds.append(took_seconds)
        self._note(f"  at rest {took_seconds:.1f} s after the faults")
        self._look_after()
        self.judge.check(self._find_wanted())
        self._rotten.clear()
        self._asked = [self._wishes]
        for model, caller in self.callers.items():
            wish = self._wishes.get(model)
            caller.is_due = wish is not None and bool(self.stage.serving(model))
            if wish is not None and wish.stop and not wish.broken:
                caller.is_due = False
        self._tell_callers()

    def _find_lack(self) -> str:
        """Return what is not yet as the newest commit says; empty when all is."""
        response = self.stage.ask("/status")
        if response is None or not response.is_success:
            return "the agent does not answer"
        status = response.json()
        head = git("rev-parse", "HEAD", cwd=self.stage.remote.work)
        if (status["observed"] or {}).get("id") != head:
            return f"commit {head} was not read: {_unmet(status)}"
        said = {item["model"]: item for item in status["deployments"]}
        for model in MODELS:
            lack = self._find_lack_of(model, said.get(model, {}))
            if lack:
                return f"{model} {self._wishes.get(model)}: {lack}: {_unmet(status)}"
        for model, version in self._rotten:
            found = sum_up(self.stage.models_dir / model / str(version))
            if found != self.judge.published[model, version]:
                return f"{model} {version} is not mended: {_unmet(status)}"
        return ""

    def _find_lack_of(self, model: str, said: dict[str, Any]) -> str:
        wish, serving = self._wishes.get(model), self.stage.serving(model)
        is_any_broken = any(item.broken for item in self._wishes.values())
        caller = self.callers[model]
        if wish is None:
            return f"{sorted(serving)} serve" if serving and not is_any_broken else ""
        if wish.broken:
            return "" if said.get("reason") == "InvalidConfig" else f"it is {said}"
        if wish.stop:
            return f"{sorted(serving)} serve" if serving else ""
        if wish.version == BROKEN:
            is_failed = (said.get("phase"), said.get("reason")) == ("Failed", "LoadFailed")
            return "" if is_failed else f"it is {said}"
        wanted = {wish.version or self._newest[model]} | ({wish.label} if wish.label else set())
        if serving != wanted or said.get("phase") != "Deployed":
            return f"{sorted(serving)} serve of {sorted(wanted)}; it is {said}"
        return "" if caller.last.startswith("version") else f"callers get {caller.last}"

    def _find_wanted(self) -> dict[str, frozenset[int]]:
        """Return what every commit since the last rest wanted to serve."""
        wanted: dict[str, frozenset[int]] = {}
        for model in MODELS:
            wishes = [asked.get(model) for asked in self._asked]
            if any(wish is None or wish.stop or wish.broken for wish in wishes):
                continue
            each = [{wish.version or self._newest[model], wish.label} for wish in wishes if wish]
            versions = set.intersection(*map(set, each))
            wanted[model] = frozenset(version for version in versions if version)
        return wanted

    def _tell_callers(self) -> None:
        """Say which versions may answer: what git asked for since the last rest."""
        for model, caller in self.callers.items():
            wishes = [asked[model] for asked in self._asked if model in asked]
            resting = self._asked[0].get(model)
            if any(w.broken or w.version in (None, BROKEN) for w in wishes) or resting is None:
                caller.allowed = frozenset()
                continue
            versions = {wish.version for wish in wishes} | {wish.label for wish in wishes}
            caller.allowed = frozenset(version for version in versions if version)

    def _note(self, text: str) -> None:
        self.history.append(f"{time.monotonic() - self._begun_at:7.2f} {text}")
        self.say(self.history[-1])

    def explain(self, error: BaseException) -> str:
        """Return all that one needs to understand and to repeat what went wrong."""
        versions = sorted(list_versions(self.stage.models_dir))
        return "\n".join(
            [
                *self.history[-60:],
                f"{type(error).__name__}: {error}",
                f"on disk: {versions}",
                "the agent's last words:",
                *self.stage.log.splitlines()[-25:],
                f"repeat it: make chaos SEED={self.seed} ROUNDS={self.figures.rounds + 1}",
            ]
        )


def _unmet(status: dict[str, Any]) -> str:
    return "; ".join(c["sentence"] for c in status["conditions"] if not c["holds"])


@contextmanager
def set_up(folder: Path, endpoint: str, seed: int, say: Callable[[str], None]) -> Iterator[Player]:
    """Build the stage around one node and take it down again."""
    with ExitStack() as stack:
        disk = stack.enter_context(mount_small_disk(folder / "disk"))
        os.environ["CHAOS_LOADS"] = str(folder / "loads.jsonl")
        git_server = stack.enter_context(serve_http(folder))
        bucket_sky, git_sky = stack.enter_context(
            run_skies(seed, endpoint, f"http://127.0.0.1:{git_server.server_port}")
        )
        stage = Stage(
            folder,
            endpoint,
            settings={
                "STORAGE_EMULATOR_HOST": bucket_sky.proxy.url,
                "RECONCILER_REPO": f"{git_sky.proxy.url}/fleet.git",
                "RECONCILER_STATE_DIR": str(disk.folder / "state"),
                "RECONCILER_GIT_DEADLINE": "3s",
            },
            server_command=_SERVER,
        )
        stack.callback(stage.close)
        stage.models_dir = disk.folder / "models"
        stage.config_file = stage.models_dir / "models.config"
        judge = Judge(
            stage.models_dir, Lines(folder / "loads.jsonl"), Lines(folder / "journal.jsonl")
        )
        callers = {model: Caller(stage.port, model) for model in MODELS}
        player = Player(seed, stage, bucket_sky, git_sky, disk, judge, callers, say)
        loops: list[Callable[[threading.Event], None]] = [c.run for c in callers.values()]
        stack.enter_context(asking(*loops))
        yield player


def play(
    player: Player,
    rounds: int,
    until: float | None = None,
    *,
    least_rounds: int = 0,
    first: Kill | None = None,
    draw: Callable[[Dice], Iterator[Round]] = Dice.throw,
) -> Figures:
    """Play this many rounds, or until that time of the steady clock; raises BrokenError.

    `least_rounds` are played however late it is. `first` is where the agent is killed when it first
    starts, by default somewhere; `draw` gives the rounds afterwards, by default what chance has.
    """
    dice = Dice(player.seed, has_disk=player.disk.is_mounted)
    try:
        player.begin(dice.wishes, first or dice.first_kill())
        for item in draw(dice):
            is_late = until is not None and time.monotonic() > until
            if item.number > rounds or (is_late and item.number > least_rounds):
                break
            player.play(item)
    except Exception as error:
        raise BrokenError(player.explain(error)) from error
    return player.figures
