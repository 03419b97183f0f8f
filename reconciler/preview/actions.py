"""From the course that a node takes to what a person wants to know of each model."""

from collections.abc import Mapping

from reconciler.model import Ask, Deployment, Outcome, Phase
from reconciler.preview.catalog import Bytes, Catalog
from reconciler.preview.pairs import Pair
from reconciler.preview.report import Action, LabelMove, Usage
from reconciler.preview.simulate import Course, Look, Versions
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
        after=outcome.wanted if outcome and after and not after.stop else None,
        downloads=tuple(look_up(version) for version in sorted(fetched)),
        reused=tuple(sorted(ever - start - set(fetched))),
        loaded=tuple(sorted(ever - start)),
        unloaded=tuple(sorted(ever - end)),
        deleted=tuple(look_up(version) for version in sorted(deleted)),
        labels=labels,
        has_gap=bool(start and end) and any(_is_dark(look, model) for look in course.looks),
        trouble=_find_trouble(outcome),
        description=after.description if after else "",
    )


def _find_trouble(outcome: Outcome | None) -> str | None:
    if outcome is None or outcome.phase in (Phase.DEPLOYED, Phase.STOPPED):
        return None
    return outcome.sentence


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


def find_usages(
    pair: Pair, standing: Standing, course: Course, catalog: Catalog
) -> tuple[Usage, ...]:
    """Return what the pair's nodes use of their group's quotas, those that are set."""
    quota = pair.head.group.quota if pair.head.group else None
    if quota is None:
        return ()
    sizes, unsized = _find_sizes(pair, standing, catalog)
    start = course.looks[0].loaded
    end = {
        item.model: catalog.find_versions(item) for item in pair.head.deployments if not item.stop
    }

    def total(versions: Versions) -> int:
        return sum(sizes.get((m, v), 0) for m, found in versions.items() for v in found)

    def count(versions: Versions) -> int:
        return sum(1 for found in versions.values() if found)

    after_bytes = total(end)
    usages = []
    if quota.disk_bytes is not None:
        peak = max(after_bytes, *(total(look.on_disk) for look in course.looks))
        usages.append(Usage("disk", total(start), after_bytes, peak, quota.disk_bytes, unsized))
    if quota.models is not None:
        peak = max(count(end), *(count(look.loaded) for look in course.looks))
        usages.append(Usage("models", count(start), count(end), peak, quota.models))
    if quota.memory_bytes is not None:
        peak = max(after_bytes, *(total(look.loaded) for look in course.looks))
        usages.append(Usage("memory", total(start), after_bytes, peak, quota.memory_bytes, unsized))
    return tuple(usages)


def _find_sizes(
    pair: Pair, standing: Standing, catalog: Catalog
) -> tuple[Mapping[tuple[str, int], int], tuple[str, ...]]:
    """Return the size of (model, version) wherever it is known, and the models where it is not."""
    sizes: dict[tuple[str, int], int] = {}
    unsized = set()
    for model, versions in standing.local.versions.items():
        for version, local in versions.items():
            sizes[model, version] = local.size_bytes
    for deployment in (*pair.base.deployments, *pair.head.deployments):
        if deployment.stop:
            continue
        for version in catalog.find_versions(deployment):
            known = catalog.find_bytes(deployment, version)
            if known.size_bytes is None:
                unsized.add(deployment.model)
            else:
                sizes[deployment.model, version] = known.size_bytes
    return sizes, tuple(sorted(unsized))
