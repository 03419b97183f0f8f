"""From the course that a node takes to what a person wants to know of each model."""

from collections.abc import Iterable

from reconciler.model import Ask, Deployment, Outcome, Phase
from reconciler.preview.catalog import Bytes, Catalog, hide_unknown
from reconciler.preview.pairs import Pair
from reconciler.preview.report import Action, LabelMove
from reconciler.preview.simulate import Course, Look
from reconciler.preview.standing import Standing

_NONE: frozenset[int] = frozenset()


def find_actions(
    pair: Pair, standing: Standing, course: Course, catalog: Catalog
) -> tuple[Action, ...]:
    """Return what the nodes of a pair do, a model each, sorted by model."""
    changed = pair.changed
    moving = {step.model for step in course.fetches} | {step.model for step in course.deletions}
    first, last = course.looks[0].loaded, course.looks[-1].loaded
    moving |= {model for model in first.keys() | last.keys() if first.get(model) != last.get(model)}
    before = {item.model: item for item in pair.base.deployments}
    after = {item.model: item for item in pair.head.deployments}
    return tuple(
        _describe(pair.group, before.get(model), after.get(model), model, standing, course, catalog)
        for model in sorted(moving | changed.keys())
    )


def _describe(
    group: str,
    before: Deployment | None,
    after: Deployment | None,
    model: str,
    standing: Standing,
    course: Course,
    catalog: Catalog,
) -> Action:
    newest = after or before
    known = standing.memory.of(model)
    start = course.looks[0].loaded.get(model, _NONE)
    end = course.looks[-1].loaded.get(model, _NONE)
    ever = frozenset[int]().union(*(look.loaded.get(model, _NONE) for look in course.looks))
    fetched = [step.snapshot.version for step in course.fetches if step.model == model]
    deleted = [step.version for step in course.deletions if step.model == model]
    verdicts = (*course.outcomes, *course.removals)
    outcome = next((o for o in verdicts if o.deployment.model == model), None)
    labels = _find_label_moves(known.asked, course.memory.of(model).asked)

    def look_up(version: int) -> Bytes:
        for deployment in (after, before):
            if deployment is not None:
                found = catalog.find_bytes(deployment, version)
                if found.size_bytes is not None:
                    return found
        local = standing.local.versions.get(model, {}).get(version)
        return Bytes(version, None, local.size_bytes or None) if local else Bytes(version)

    return Action(
        group=group,
        model=model,
        path=newest.path if newest else "",
        before=known.proven[-1] if start and known.proven else None,
        after=None if after is None or after.stop else catalog.find_version(after),
        downloads=tuple(look_up(version) for version in sorted(fetched)),
        reused=tuple(sorted(ever - start - set(fetched))),
        loaded=tuple(sorted(ever - start)),
        unloaded=tuple(sorted(ever - end)),
        deleted=tuple(look_up(version) for version in sorted(deleted)),
        labels=labels,
        has_gap=bool(start and end) and any(_is_dark(look, model) for look in course.looks),
        trouble=_find_trouble(outcome),
        description=after.description if after else "",
        names=_name_versions(catalog, before, after, ever | {*fetched, *deleted}),
    )


def _name_versions(
    catalog: Catalog, before: Deployment | None, after: Deployment | None, versions: Iterable[int]
) -> tuple[tuple[int, str], ...]:
    """Return what versions are called: by the side that asks for them, the head first."""
    sides = [side for side in (after, before) if side is not None]
    asked = {each: catalog.find_versions(side) for each, side in enumerate(sides)}
    names = {}
    for version in {*versions, *frozenset[int]().union(*asked.values())}:
        asking = [side for each, side in enumerate(sides) if version in asked[each]]
        aliases = {side.scheme.alias(version) for side in asking or sides}
        if len(aliases) == 1 and (name := aliases.pop()) is not None:
            names[version] = name
    return tuple(sorted(names.items()))


def _find_trouble(outcome: Outcome | None) -> str | None:
    if outcome is None or outcome.phase in (Phase.DEPLOYED, Phase.STOPPED):
        return None
    return hide_unknown(outcome.sentence)


def _is_dark(look: Look, model: str) -> bool:
    return not look.loaded.get(model)


def _find_label_moves(before: Ask | None, after: Ask | None) -> tuple[LabelMove, ...]:
    old = before.labels if before else {}
    new = after.labels if after else {}
    return tuple(
        LabelMove(label, old.get(label), new.get(label))
        for label in sorted(old.keys() | new.keys())
        if old.get(label) != new.get(label)
    )
