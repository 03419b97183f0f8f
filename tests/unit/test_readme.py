"""The README lists every setting and condition, by their names and defaults."""

from dataclasses import MISSING
from pathlib import Path

from reconciler.cli.main import _COMMANDS
from reconciler.planning.memory import Memory
from reconciler.planning.steps import World
from reconciler.settings import environment_name, setting_fields
from tests.unit.worlds import available, desired, local, make_plan, served

README = (Path(__file__).parents[2] / "README.md").read_text()


def show_default(default: object, kind: str) -> str:
    if default is MISSING:
        return "host name"
    if default in (None, ""):
        return ""
    if kind == "duration":
        return f"`{default:g}s`"
    return f"`{default}`"


def test_the_table_of_settings_is_complete() -> None:
    rows = []
    for item in setting_fields():
        is_needed = item.default is MISSING and item.default_factory is MISSING
        default = "needed" if is_needed else show_default(item.default, item.metadata["kind"])
        rows.append(f"| `{environment_name(item.name)}` | {default} | {item.metadata['help']} |")
    table = "\n".join(rows)
    assert table in README, f"put this table into README.md:\n{table}"


def test_every_command_is_named() -> None:
    for name in _COMMANDS:
        assert f"reconciler {name}" in README, name


def test_every_condition_is_named() -> None:
    world = World(desired(), available(), local({}), served({}), {})
    made = make_plan(world, Memory())
    assert made.conditions
    for condition in made.conditions:
        assert f"| `{condition.name}` |" in README
