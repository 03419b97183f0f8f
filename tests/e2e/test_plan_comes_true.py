"""What `reconciler plan` says of a change is what a node then does, over chains of random changes.

Each chain begins with a node that serves and goes on commit by commit: the plan is made between two
commits, the agent brings a real model server from the one to the other, and disk, server and
downloaded bytes are compared with what was said. A plan counts versions in full, so here no two
have a file in common, which the agent would not fetch again.
"""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reconciler.agent import Agent
from reconciler.cli.lock import lock
from reconciler.cli.plan import preview_change
from reconciler.model import Phase
from reconciler.preview.as_json import to_json
from reconciler.settings import load_settings
from reconciler.single_pass import run_once
from tests.bucket import read_files
from tests.e2e.stage import Stage, wait_until
from tests.gitserver import IDENTITY, git
from tests.savedmodels import write_savedmodel

MODELS = ("a", "b", "c")
VERSIONS = (1, 2, 3, 4)
MISSING = 9
STEPS = 6
_PASS_SECONDS = 20.0

Files = dict[str, str | None]


@dataclass
class Config:
    """What the config repo says; each change makes it say something else."""

    models: dict[str, dict[str, Any]]
    group: dict[str, Any] = field(default_factory=lambda: {"nodes": ["node"]})
    fleet: dict[str, Any] = field(default_factory=lambda: {"keep": 1, "max_removals": 3})
    locked: set[str] = field(default_factory=set)
    """Models whose lock is written anew."""
    unlocked: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Seen:
    """What is on a node."""

    disk: Mapping[str, frozenset[int]]
    serving: Mapping[str, frozenset[int]]


class Node:
    """The agent and its server, brought to a commit in one pass."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def follow(self) -> tuple[dict[str, Phase], int]:
        """Bring the node to the newest commit; return each model's phase and the bytes it took."""
        return asyncio.run(self._follow())

    async def _follow(self) -> tuple[dict[str, Phase], int]:
        agent = Agent(load_settings({}, self.stage.environment()))
        try:
            await run_once(agent, _PASS_SECONDS)
        finally:
            await agent.close()
        assert agent.plan is not None
        verdicts = (*agent.plan.outcomes, *agent.plan.removals)
        registry = agent.metrics._registry
        taken = registry.get_sample_value("reconciler_downloaded_bytes_total")
        return {o.deployment.model: o.phase for o in verdicts}, int(taken or 0)

    def look(self) -> Seen:
        folder = self.stage.models_dir
        disk = {
            model: frozenset(int(p.name) for p in (folder / model).glob("*") if p.name.isdecimal())
            for model in MODELS
        }
        serving = {model: frozenset(self.stage.serving(model)) for model in MODELS}
        return Seen(disk, serving)


# --- the changes ----------------------------------------------------------------------------------


def move(config: Config, model: str, dice: random.Random) -> None:
    config.models[model]["version"] = dice.choice(VERSIONS)
    config.locked.add(model)


def follow_latest(config: Config, model: str, dice: random.Random) -> None:
    config.models[model]["version"] = "latest"
    config.locked.add(model)


def follow_latest_unlocked(config: Config, model: str, dice: random.Random) -> None:
    config.models[model]["version"] = "latest"
    config.unlocked.add(model)


def move_without_its_lock(config: Config, model: str, dice: random.Random) -> None:
    config.models[model]["version"] = dice.choice(VERSIONS)


def label(config: Config, model: str, dice: random.Random) -> None:
    names = dice.sample(("stable", "canary"), dice.randint(0, 2))
    config.models[model]["labels"] = {name: dice.choice(VERSIONS) for name in names}
    config.locked.add(model)


def stop(config: Config, model: str, dice: random.Random) -> None:
    config.models[model]["stop"] = not config.models[model].get("stop", False)


def remove(config: Config, model: str, dice: random.Random) -> None:
    if len(config.models) > 1:
        del config.models[model]


def suspend(config: Config, model: str, dice: random.Random) -> None:
    config.models[model]["suspend"] = True
    config.models[model]["version"] = dice.choice(VERSIONS)
    config.locked.add(model)


def recreate(config: Config, model: str, dice: random.Random) -> None:
    config.models[model]["rollout"] = {"strategy": dice.choice(("overlap", "recreate"))}
    move(config, model, dice)


def keep(config: Config, model: str, dice: random.Random) -> None:
    config.fleet["keep"] = dice.randint(0, 2)


def squeeze(config: Config, model: str, dice: random.Random) -> None:
    config.group["quota"] = {"models": dice.randint(1, 3)}


def limit_disk(config: Config, model: str, dice: random.Random) -> None:
    config.group["quota"] = {"disk": dice.choice(("1kB", "1MB"))}


def miss(config: Config, model: str, dice: random.Random) -> None:
    config.models[model]["version"] = MISSING
    config.unlocked.add(model)


def break_file(config: Config, model: str, dice: random.Random) -> None:
    config.broken.add(model)


Change = Callable[[Config, str, random.Random], None]

CALM: tuple[Change, ...] = (move, move, follow_latest, label, label, stop, remove, recreate, keep)
WILD: tuple[Change, ...] = (
    *(move_without_its_lock, follow_latest_unlocked, suspend, squeeze, limit_disk, miss),
    break_file,
    *CALM,
)
"""After these git does not say for sure what is on the node, so they come last in a chain."""


def write(stage: Stage, config: Config, dice: random.Random) -> str:
    """Commit the config, with the locks that its changes ask for, and return the commit."""
    folder = stage.remote.work / "deployments/g"
    texts: Files = {
        "groups/g.yaml": json.dumps(config.group),
        "fleet.yaml": json.dumps(config.fleet),
    }
    for model in MODELS:
        path = f"deployments/g/{model}.yaml"
        if model in config.models:
            source = f"gs://{stage.bucket.name}/{model}"
            texts[path] = json.dumps({"source": source, **config.models[model]})
        elif (folder / f"{model}.yaml").exists():
            texts[path] = None
        is_locked = (folder / f"{model}.lock.yaml").exists()
        if is_locked and (model in config.unlocked or model not in config.models):
            texts[f"deployments/g/{model}.lock.yaml"] = None
    stage.remote.write(texts)
    for model in sorted(config.locked & config.models.keys()):
        must = config.models[model]["version"] == "latest"
        if must or (folder / f"{model}.lock.yaml").exists() or dice.random() < 0.4:
            options = ["--update", "--no-commit"] if dice.random() < 0.5 else []
            CliRunner().invoke(lock, [model, *options, "--settle=0s", "-C", str(stage.remote.work)])
    for model in config.broken & config.models.keys():
        stage.remote.write({f"deployments/g/{model}.yaml": "source: ["})
    config.locked.clear()
    config.unlocked.clear()
    return stage.remote.commit({})


def publish(stage: Stage, model: str, version: int) -> None:
    """Put a version into the bucket of which every file is its own."""
    name = f"{model}{version}"
    value = 10 * version + MODELS.index(model)
    files = read_files(write_savedmodel(stage.folder / "exports" / name, value))
    # A protobuf field that nobody knows, and everybody passes over.
    files["saved_model.pb"] += bytes([15 << 3 | 2, len(name)]) + name.encode()
    stage.bucket.put_version(str(version), files, under=model)


def change(config: Config, changes: tuple[Change, ...], dice: random.Random) -> Config:
    """Return what the config says after one or two random changes."""
    # A copy by JSON, so that nothing is shared.
    new = Config(*json.loads(json.dumps([config.models, config.group, config.fleet])))
    for _ in range(dice.randint(1, 2)):
        absent = sorted(set(MODELS) - new.models.keys())
        if absent and dice.random() < 0.5:
            new.models[absent[0]] = {"version": dice.choice(VERSIONS)}
            continue
        mutate, model = dice.choice(changes), dice.choice(sorted(new.models))
        mutate(new, model, dice)
    return new


# --- the comparison -------------------------------------------------------------------------------


def foretell(plan: Any, before: Seen) -> Seen:
    """Return what a plan says will be on the node."""
    disk, serving = dict(before.disk), dict(before.serving)
    for action in plan["actions"]:
        model = action["model"]
        disk[model] |= {item["version"] for item in action["downloads"]}
        disk[model] -= {item["version"] for item in action["deletions"]}
        serving[model] |= set(action["loads"])
        serving[model] -= set(action["unloads"])
    return Seen(disk, serving)


def find_troubled(plan: Any) -> set[str]:
    """Return the models that do not come to be as the commit says, by the plan."""
    told = {action["model"] for action in plan["actions"] if action["trouble"]}
    return told | {Path(problem["path"]).stem.partition(".")[0] for problem in plan["problems"]}


@pytest.mark.parametrize("seed", range(4))
def test_a_node_does_what_the_plan_says(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for name, value in {**IDENTITY, "STORAGE_EMULATOR_HOST": stage.endpoint}.items():
        monkeypatch.setenv(name, value)
    dice = random.Random(seed)
    for model in MODELS:
        for version in VERSIONS:
            publish(stage, model, version)
    config = Config({model: {"version": 2} for model in MODELS})
    write(stage, config, dice)
    stage.start()
    for model in MODELS:
        stage.wait_served(model, 2)
    wait_until(lambda: stage.status()["applied"], "the first commit to be applied")
    stage.stop_agent()
    node = Node(stage)
    for step in range(STEPS):
        base = git("rev-parse", "HEAD", cwd=stage.remote.work)
        new = change(config, WILD if step == STEPS - 1 else CALM, dice)
        head = write(stage, new, dice)
        plan = to_json(preview_change(stage.remote.work, base, head))
        before = node.look()
        phases, taken = node.follow()
        after = node.look()
        said = foretell(plan, before)
        text = git("diff", base, head, cwd=stage.remote.work) + json.dumps(plan, indent=1)
        assert (after, taken) == (said, plan["download_bytes"]), text
        troubled = {m for m, p in phases.items() if p not in (Phase.DEPLOYED, Phase.STOPPED)}
        assert troubled == find_troubled(plan), text
        assert not troubled or step == STEPS - 1, text
        config = new
