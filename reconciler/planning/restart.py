"""What TensorFlow Serving may rely on when it restarts: only what has been seen to work.

A server that finds one model of its config missing waits for it with its ports closed, and one
that fails to load a model ends. So an unproven version never stands in the file that it starts
from, and a version leaves that file before its folder leaves the disk.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from reconciler.model import Ask, LocalVersion
from reconciler.planning.memory import Memory
from reconciler.planning.rollout import Goal
from reconciler.planning.steps import Limits


def forget_good(memory: Memory, goals: Mapping[str, Goal]) -> Memory:
    """Drop from the restart config what was unloaded on purpose."""
    return memory.with_models(
        {
            model: replace(known, good=None)
            for model in memory.models.keys() - goals.keys()
            if (known := memory.of(model)).good and not known.asked
        }
    )


def find_restart_config(
    memory: Memory,
    local: Mapping[str, Mapping[int, LocalVersion]],
    quiet: Collection[str] = frozenset(),
) -> dict[str, Ask]:
    """Return what has been seen to work, as far as its files are there; those of `quiet` ones are.

    A server that finds one model of its config missing does not come up at all.
    """
    config = {}
    for model, known in memory.models.items():
        if known.good is None:
            continue
        if model in quiet:
            config[model] = known.good
            continue
        good, found = known.good, local.get(model, {})
        lost = [v for v in good.versions if v not in found or not found[v].intact]
        if lost:
            versions = good.versions - frozenset(lost)
            labels = {label: v for label, v in good.labels.items() if v in versions}
            good = Ask(versions, labels)
        if good.versions:
            config[model] = good
    return config


def keep_safe(
    config: Mapping[str, Ask],
    local: Mapping[str, Mapping[int, LocalVersion]],
    limits: Limits,
) -> dict[str, Ask]:
    """Return the config without names that could hang a server.

    A name without versions keeps its place so that none has to be added again, but not where its
    folder is gone (the server would look for no model's versions any more), and not in a file that
    a server may start from (it would wait for a version with its ports closed).
    """
    return {
        model: ask
        for model, ask in config.items()
        if ask.versions or (model in local and not limits.is_file_driven)
    }
