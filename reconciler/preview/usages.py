"""How much of its group's quotas a node uses before, after, and at most in between."""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.preview.catalog import Catalog
from reconciler.preview.pairs import Pair
from reconciler.preview.report import Usage
from reconciler.preview.simulate import Course, Versions
from reconciler.preview.standing import Standing


@dataclass(frozen=True, slots=True)
class Sizes:
    """The bytes of every version that a node has or is asked for, as far as anybody knows."""

    known: Mapping[tuple[str, int], int]
    unsized: tuple[str, ...]
    """Models of which a version that is asked for has no known size."""

    def sum(self, versions: Versions) -> int:
        """Return the bytes of these versions together; unknown ones count as nothing."""
        return sum(self.known.get((m, v), 0) for m, found in versions.items() for v in found)


def find_sizes(pair: Pair, standing: Standing, catalog: Catalog) -> Sizes:
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
    return Sizes(sizes, tuple(sorted(unsized)))


def find_scope(pair: Pair, sizes: Sizes, catalog: Catalog) -> frozenset[str] | None:
    """Return the models whose course must be played; None for all that the node has.

    Models that do not change matter to others in two ways only: they take up the quota, and they
    are counted when it is asked how many may be removed at once. Where all of them together fit,
    and none leaves, the others' course is the same without them.
    """
    changed = pair.changed
    group = pair.head.group
    if group is None or any(after is None for _, after in changed.values()):
        return None
    if pair.base.policy.keep != pair.head.policy.keep or pair.base.broken or pair.head.broken:
        return None
    end = _asked_for(pair, catalog)
    quota, total_bytes = group.quota, sizes.sum(end)
    limits = (quota.disk_bytes, total_bytes), (quota.memory_bytes, total_bytes)
    if any(
        limit is not None and used > limit for limit, used in (*limits, (quota.models, len(end)))
    ):
        return None
    return frozenset(changed)


def find_usages(pair: Pair, course: Course, sizes: Sizes, catalog: Catalog) -> tuple[Usage, ...]:
    """Return what the pair's nodes use of their group's quotas, those that are set."""
    quota = pair.head.group.quota if pair.head.group else None
    if quota is None:
        return ()
    start, end = course.looks[0].loaded, _asked_for(pair, catalog)
    before_bytes, after_bytes = sizes.sum(start), sizes.sum(end)
    usages = []
    if quota.disk_bytes is not None:
        peak = max(after_bytes, *(sizes.sum(look.on_disk) for look in course.looks))
        usages.append(
            Usage("disk", before_bytes, after_bytes, peak, quota.disk_bytes, sizes.unsized)
        )
    if quota.models is not None:
        peak = max(len(end), *(_count(look.loaded) for look in course.looks))
        usages.append(Usage("models", _count(start), len(end), peak, quota.models))
    if quota.memory_bytes is not None:
        peak = max(after_bytes, *(sizes.sum(look.loaded) for look in course.looks))
        usages.append(
            Usage("memory", before_bytes, after_bytes, peak, quota.memory_bytes, sizes.unsized)
        )
    return tuple(usages)


def _asked_for(pair: Pair, catalog: Catalog) -> Versions:
    return {
        item.model: catalog.find_versions(item) for item in pair.head.deployments if not item.stop
    }


def _count(versions: Versions) -> int:
    return sum(1 for found in versions.values() if found)
