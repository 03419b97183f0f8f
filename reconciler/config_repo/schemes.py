"""How a deployment names its versions: from the fields of one file to a rule, and what is amiss.

What a version stands for follows from its own file alone, so this is looked at with the schema: a
document that got past it has a number for each name in it.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from reconciler.config_repo.yaml_text import Mistake, Path, Spot, show
from reconciler.model import NUMBER, Rule, VersionScheme
from reconciler.model.scheme import check_pattern

_LATEST = "latest"
_EXAMPLE_DATE = 20261121000000


def build_scheme(written: Any) -> VersionScheme:
    """Return the scheme that a field `version_scheme` means."""
    if isinstance(written, str):
        return NUMBER if written == Rule.NUMBER else VersionScheme(Rule(written))
    if "dates" in written:
        return VersionScheme(Rule.DATES, pattern=written["dates"])
    return VersionScheme(Rule.NAMES, names=tuple(sorted(written["names"].items())))


def parse_written(written: int | str, scheme: VersionScheme) -> int:
    """Return the number of a version as a document without mistakes writes it."""
    version = written if isinstance(written, int) else scheme.parse(written)
    assert version is not None  # find_scheme_mistakes came before  # noqa: S101
    return version


def find_scheme_mistakes(fields: Mapping[str, Any], spots: Mapping[Path, Spot]) -> list[Mistake]:
    """Return what is wrong with a deployment's scheme, and with the versions that it names."""
    written = fields.get("version_scheme", Rule.NUMBER)
    parts = written if isinstance(written, dict) else {}
    mistakes = []

    def complain(message: str, *path: str) -> None:
        spot = spots[path]
        mistakes.append(Mistake(spot.line, spot.column, message))

    if "dates" in parts and (lack := check_pattern(parts["dates"])):
        message = (
            f"the pattern {show(parts['dates'])} {lack}; write one such as '%Y-%m-%d', in quotes"
        )
        complain(message, "version_scheme", "dates")
        return mistakes
    owners: dict[int, str] = {}
    for name, number in parts.get("names", {}).items():
        if (owner := owners.setdefault(number, name)) != name:
            message = (
                f"number {number} stands for {owner} already; give {name} one of its own that was"
                " never used"
            )
            complain(message, "version_scheme", "names", name)
    scheme = build_scheme(written)
    for path, name in _list_named(fields):
        if isinstance(name, str) and scheme.parse(name) is None:
            complain(f"version {show(name)} {_explain_misfit(name, scheme)}", *path)
    return mistakes


def _list_named(fields: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], int | str]]:
    if fields["version"] != _LATEST:
        yield ("version",), fields["version"]
    for label, name in fields.get("labels", {}).items():
        yield ("labels", label), name


def _explain_misfit(name: str, scheme: VersionScheme) -> str:
    match scheme.rule:
        case Rule.DATES:
            example = scheme.name(_EXAMPLE_DATE)
            return (
                f"is no date as version_scheme writes it ({scheme}), such as {show(example or '')}"
            )
        case Rule.NAMES:
            names = [known for known, _ in scheme.names]
            near = get_close_matches(name, names, n=1)
            number = max(number for _, number in scheme.names) + 1
            hint = f"did you mean {near[0]}? Else add" if near else "add"
            return f"is not among the names of version_scheme; {hint} it there: `{name}: {number}`"
    return "is more than a version can be: its number would not fit in 64 bits"


def find_lock_mistakes(fields: Mapping[str, Any], spots: Mapping[Path, Spot]) -> list[Mistake]:
    """Return what keeps a lock's names from standing for numbers."""
    mistakes = []
    for index, entry in enumerate(fields["locked"]):
        if isinstance(entry["version"], str) and "number" not in entry:
            spot = spots["locked", index, "version"]
            message = f"version {show(entry['version'])} has no number; run `reconciler lock` again"
            mistakes.append(Mistake(spot.line, spot.column, message))
    named = fields["version"]
    if isinstance(named, str) and named not in [entry["version"] for entry in fields["locked"]]:
        spot = spots["version",]
        message = f"version {show(named)} is not locked; run `reconciler lock` again"
        mistakes.append(Mistake(spot.line, spot.column, message))
    return mistakes
