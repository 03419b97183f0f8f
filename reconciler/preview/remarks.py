"""What whoever merges a change should know: what cannot work, and what works at a price.

Remarks about one node are the same for its like, so they are gathered by reason, group and model,
with the nodes that they are about.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from reconciler.model import Deployment, Desired, Phase
from reconciler.planning.holds import FROZEN, HOLD_REASONS, SUSPENDED, find_node_hold
from reconciler.planning.outcome import TROUBLES_THAT_PASS
from reconciler.planning.retention import REMOVALS_HELD
from reconciler.planning.wording import format_bytes
from reconciler.preview.catalog import UNKNOWN_VERSION, Catalog, hide_unknown
from reconciler.preview.pairs import Pair, Side, Undecided
from reconciler.preview.report import Action, Level, ModelAction, Remark, Usage
from reconciler.preview.simulate import Course

OVER_QUOTA = "OverQuota"
PEAK_OVER_QUOTA = "PeakOverQuota"
UNDECIDED = "Undecided"
BUCKET_SILENT = "BucketSilent"
ALL_AT_ONCE = "AllAtOnce"
GAP = "Gap"
NOT_LOCKED = "NotLocked"
DOWNLOADED_AGAIN = "DownloadedAgain"
GONE_FROM_BUCKET = "GoneFromBucket"
LABELS_MOVE = "LabelsMove"
SIZE_UNKNOWN = "SizeUnknown"
BASE_HAS_PROBLEMS = "BaseHasProblems"
BASE_IS_HELD = "BaseIsHeld"
NODES_UNKNOWN = "NodesUnknown"

PAST_IS_CUT = Remark(
    Level.NOTE,
    "ShallowClone",
    "this clone is shallow, so earlier versions that the nodes still have on disk may not be known:"
    " they may download and delete otherwise than is said here; `git fetch --unshallow`, in CI"
    " `fetch-depth: 0` or GIT_DEPTH: 0, brings the rest",
)

_LEVELS = tuple(Level)
_NAMED = 10


def find_node_remarks(
    pair: Pair, course: Course, actions: Iterable[Action], usages: Iterable[Usage], catalog: Catalog
) -> Iterator[Remark]:
    """Yield what there is to say of one pair's nodes."""
    yield from _find_refusals(pair, course, catalog)
    yield from _find_squeezes(pair, usages)
    changed = pair.changed
    for action in actions:
        before, after = changed.get(action.model, (None, None))
        for remark in _find_action_remarks(action, before, after, catalog):
            yield replace(remark, group=pair.group, model=action.model, nodes=pair.nodes)


def _find_refusals(pair: Pair, course: Course, catalog: Catalog) -> Iterator[Remark]:
    for outcome in course.outcomes:
        model = outcome.deployment.model
        if outcome.phase in (Phase.DEPLOYED, Phase.STOPPED) or model in pair.head.broken:
            continue
        passes = outcome.reason in (*TROUBLES_THAT_PASS, *HOLD_REASONS)
        is_warning = passes or catalog.is_silence(outcome.reason)
        level = Level.WARNING if is_warning else Level.PROBLEM
        sentence = hide_unknown(outcome.sentence)
        yield Remark(level, outcome.reason, sentence, pair.group, model, pair.nodes)
    for outcome in course.removals:
        if outcome.reason == REMOVALS_HELD:
            yield Remark(
                Level.WARNING,
                REMOVALS_HELD,
                f"{outcome.deployment.model} {outcome.sentence}",
                pair.group,
                outcome.deployment.model,
                pair.nodes,
            )


def _find_squeezes(pair: Pair, usages: Iterable[Usage]) -> Iterator[Remark]:
    path = pair.head.group.path if pair.head.group else ""
    for usage in usages:
        if not usage.fits:
            sentence = (
                f"what is asked for takes {show_amount(usage, usage.after)} of the"
                f" {show_amount(usage, usage.quota)} that a node may use; remove a model or raise"
                f" quota.{usage.kind} in {path}"
            )
            yield Remark(Level.PROBLEM, OVER_QUOTA, sentence, pair.group, "", pair.nodes)
        elif usage.peak > usage.quota:
            sentence = (
                f"while old and new versions are there, a node takes"
                f" {show_amount(usage, usage.peak)} of the {show_amount(usage, usage.quota)} in"
                f" quota.{usage.kind} of {path}; "
                + (
                    "`strategy: recreate` unloads the old version first"
                    if usage.kind == "memory"
                    else "make sure that the nodes have that much"
                )
            )
            yield Remark(Level.WARNING, PEAK_OVER_QUOTA, sentence, pair.group, "", pair.nodes)
        if usage.unsized:
            sentence = (
                f"the size of {_join(usage.unsized)} is not known and counts as nothing here; a"
                " lock (`reconciler lock`) would say it"
            )
            yield Remark(Level.NOTE, SIZE_UNKNOWN, sentence, pair.group, "", pair.nodes)


def _find_action_remarks(
    action: Action, before: Deployment | None, after: Deployment | None, catalog: Catalog
) -> Iterator[Remark]:
    model = action.model
    if after is not None and not after.stop:
        yield from _find_lock_remarks(after, catalog)
        if after.suspend and action.trouble is None:
            sentence = (
                f"{after.path} says suspend: true; {model} stays as it is until that line goes"
            )
            yield Remark(Level.WARNING, SUSPENDED, sentence)
    if action.has_gap:
        sentence = (
            f"{model} is unloaded before its next version is loaded (strategy recreate): each node"
            " serves nothing of it meanwhile, and all of them do so at the same time"
        )
        yield Remark(Level.WARNING, GAP, sentence)
    if after is not None:
        yield from _find_lost(action, after, catalog)
    is_back = action.after is not None and action.before is not None
    is_back = is_back and (action.after or 0) < (action.before or 0)
    if is_back and before is not None and after is not None:
        yield from _find_rollback_remarks(action)
    for move in action.labels:
        if move.before is None:
            continue
        ends = (action.show(move.before), action.show(move.after))
        what = "moves from {} to {}".format(*ends) if move.after is not None else "goes"
        sentence = (
            f"label {move.label} of {model} {what}; clients that ask for the label"
            f" {'move with it' if move.after is not None else 'are refused then'}"
        )
        yield Remark(Level.WARNING, LABELS_MOVE, sentence)


def _find_lock_remarks(after: Deployment, catalog: Catalog) -> Iterator[Remark]:
    if after.named_version is not None:
        return
    version = catalog.find_version(after)
    now = "what it comes to now cannot be told"
    if version != UNKNOWN_VERSION:
        now = f"now it comes to {after.scheme.show(version)}"
    sentence = (
        f"{after.path} says latest and has no lock: each node resolves it by itself, {now}. Run"
        f" `reconciler lock {after.model}` to have git say which bytes run"
    )
    yield Remark(Level.WARNING, NOT_LOCKED, sentence)


def _find_lost(action: Action, after: Deployment, catalog: Catalog) -> Iterator[Remark]:
    for version in action.reused:
        if catalog.is_missing(after, version):
            sentence = (
                f"version {action.show(version)} of {action.model} is no longer in {after.source}:"
                " nodes that served it still have it on disk, one that did not, or is replaced,"
                " cannot get it; upload it again, or choose a version that is there"
            )
            yield Remark(Level.WARNING, GONE_FROM_BUCKET, sentence)


def _find_rollback_remarks(action: Action) -> Iterator[Remark]:
    version = action.after
    if version in {item.version for item in action.downloads}:
        sentence = (
            f"{action.model} goes back from {action.show(action.before)} to {action.show(version)},"
            " which the nodes have deleted by now: it is downloaded again. `keep` in fleet.yaml"
            " says how many earlier versions stay on disk"
        )
        yield Remark(Level.WARNING, DOWNLOADED_AGAIN, sentence)


def find_fleet_remarks(
    base: Side,
    head: Side,
    groups: Iterable[str],
    undecided: Iterable[Undecided],
    catalog: Catalog,
    wall_seconds: float,
) -> Iterator[Remark]:
    """Yield what there is to say of the fleet: freezes, suspensions, what cannot be told."""
    for item in undecided:
        yield Remark(Level.PROBLEM, UNDECIDED, item.sentence, nodes=(item.node,))
    for name in groups:
        group = head.fleet.groups.get(name)
        asked = Desired(head.commit, "", group, (), head.fleet.policy)
        hold = find_node_hold(asked, None, wall_seconds)
        if hold is not None and hold.reason == FROZEN:
            sentence = (
                f"group {name} is {hold.sentence}; before then its nodes only go back to versions"
                " that served before"
            )
            yield Remark(Level.WARNING, FROZEN, sentence, name)
        elif hold is not None:
            sentence = f"{hold.sentence}; the group's nodes stay as they are until that line goes"
            yield Remark(Level.WARNING, hold.reason, sentence, name)
        if group is not None and group.membership is not None:
            registry = group.membership.registry
            sentence = (
                f"only {registry} knows which nodes {name} has; what is said of `any node of"
                f" {name}` is what one does that holds all its deployments"
            )
            yield Remark(Level.NOTE, NODES_UNKNOWN, sentence, name)
        before = base.fleet.groups.get(name)
        if before is not None and (before.suspend or not before.enabled):
            why = (
                "suspended" if before.suspend else "switched off, so a download is counted for all"
            )
            sentence = (
                f"what the nodes of {name} have on disk is not known: at the base it is {why}"
            )
            yield Remark(Level.NOTE, BASE_IS_HELD, sentence, name)
    if catalog.silences:
        others = len(catalog.silences) - 1
        more = f" (and {others} more)" if others else ""
        what = (
            f"{catalog.silences[0]}{more}; what could not be asked for is taken to be there, at the"
            " sizes that locks say"
        )
        yield Remark(Level.WARNING, BUCKET_SILENT, what)
    if base.fleet.problems:
        sentence = (
            f"the base has problems too ({base.fleet.problems[0]}); nodes are taken to follow the"
            " last good text of such a file, as far as this clone holds it"
        )
        yield Remark(Level.NOTE, BASE_HAS_PROBLEMS, sentence)


def find_crowds(
    actions: Iterable[ModelAction], holders: Mapping[tuple[str, str], int]
) -> Iterator[Remark]:
    """Yield the models that every node which serves them changes at the same time.

    `holders` says on how many nodes of a group a model is, by (group, model), unless it changes
    in waves.
    """
    crowds: dict[str, list[str]] = {}
    changing: dict[tuple[str, str], set[str]] = {}
    for found in actions:
        action = found.action
        if action.unloaded and action.loaded:
            changing.setdefault((action.group, action.model), set()).update(found.nodes)
    for (group, model), nodes in sorted(changing.items()):
        if len(nodes) > 1 and len(nodes) >= holders.get((group, model), len(nodes) + 1):
            crowds.setdefault(group, []).append(model)
    for group, models in crowds.items():
        sentence = (
            f"all nodes that serve {_join(models)} change the version at the same time; a version"
            " that loads and answers wrongly is then everywhere at once:"
            " `rollout: {waves: [1, 100%], pause: 5m}` tries it on one node first"
        )
        yield Remark(Level.WARNING, ALL_AT_ONCE, sentence, group)


def gather(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    """Return the remarks, the gravest first, each once with all nodes that it is about."""
    nodes: dict[Remark, set[str]] = {}
    for remark in remarks:
        nodes.setdefault(replace(remark, nodes=()), set()).update(remark.nodes)
    gathered = [replace(remark, nodes=tuple(sorted(names))) for remark, names in nodes.items()]
    return tuple(
        sorted(
            gathered,
            key=lambda r: (_LEVELS.index(r.level), r.group, r.model, r.reason, r.sentence, r.nodes),
        )
    )


def show_amount(usage: Usage, amount: int) -> str:
    """Return an amount of a quota in its unit."""
    return f"{amount} models" if usage.kind == "models" else format_bytes(amount)


def _join(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
