"""What TensorFlow Serving may rely on when it restarts: only what has been seen to work.

A server that finds one model of its config missing waits for it with its ports closed, and one
that fails to load a model ends. So an unproven version never stands in the file that it starts
from, and a version leaves that file before its folder leaves the disk.
"""

from collections.abc import Mapping
from dataclasses import replace

from reconciler.model import Ask, LocalVersion
from reconciler.planning.memory import Memory
from reconciler.planning.rollout import Goal


def forget_good(memory: Memory, goals: Mapping[str, Goal]) -> Memory:
    """Drop from the restart config what was unloaded on purpose."""
    for model, known in memory.models.items():
        if known.good and not known.asked and model not in goals:
            memory = memory.with_model(model, replace(known, good=None))
    return memory


def find_restart_config(
    memory: Memory, local: Mapping[str, Mapping[int, LocalVersion]]
) -> dict[str, Ask]:
    """Return what has been seen to work, as far as its files are there.

    A server that finds one model of its config missing does not come up at all.
    """
    config = {}
    for model, known in memory.models.items():
        if known.good is None:
            continue
        versions = known.good.versions & local.get(model, {}).keys()
        labels = {label: v for label, v in known.good.labels.items() if v in versions}
        if versions:
            config[model] = Ask(versions, labels)
    return config
