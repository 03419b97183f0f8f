"""From what was seen of each node to the view of the whole fleet: pure, no I/O and no clock."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from reconciler.fleet.deployments import roll_up_deployments
from reconciler.fleet.expected import Expected
from reconciler.fleet.nodes import Node, Now, describe_clock, find_node_troubles, identify
from reconciler.fleet.poll import Sighting
from reconciler.fleet.view import (
    PHASE_RANK,
    PHASES,
    SEVERITY_RANK,
    ChangeView,
    CommitView,
    ConditionView,
    Counts,
    DeploymentView,
    DiskView,
    FleetPhase,
    FleetState,
    FleetView,
    GroupView,
    Lag,
    NodeState,
    NodeView,
    Severity,
    Standing,
    Trouble,
)
from reconciler.model import Commit
from reconciler.status.report import timestamp

MAX_WRONG: Final = 500
MAX_CHANGES: Final = 50


def roll_up(
    sightings: Sequence[Sighting], expected: Expected | None, now: Now, seen_from: str
) -> FleetView:
    """Return the fleet as it was seen, held against what git expects where a clone is at hand."""
    nodes, wrong = identify(sightings, now)
    newest = _find_newest(nodes.values(), expected)
    # A clone that lacks the commit that nodes are at would call wrong what is right.
    git = expected if expected and (newest is None or newest.id in expected.positions) else None
    deployments = roll_up_deployments(nodes, None if git is None else git.deployments)
    wrong += find_node_troubles(nodes)
    wrong += [_miss_group(path) for path in (expected.lost_files if expected else ())]
    hidden = set(expected.unlisted_groups if expected else ()) - {n.group for n in nodes.values()}
    wrong += map(_hide_group, hidden)
    in_sight = (item for item in deployments if item.nodes or item.group not in hidden)
    wrong += [trouble for item in in_sight if (trouble := _find_trouble(item))]
    wrong.sort(key=_rank)
    positions = expected.positions if expected else {}
    node_views = _view_nodes(nodes.values(), deployments, wrong, newest, positions, now)
    groups = _view_groups(node_views, deployments, expected)
    blind = not any(node.is_alive for node in nodes.values())
    return FleetView(
        generated_at=timestamp(now.wall_seconds),
        seen_from=seen_from,
        expected_from="nodes" if git is None else "git",
        state=FleetState.BLIND if blind else FleetState.TROUBLE if wrong else FleetState.WELL,
        newest=_view_commit(newest),
        counts=Counts(
            nodes=_count_states(node_views),
            deployments=_count_phases(deployments),
            groups=len(groups),
        ),
        wrong=tuple(wrong[:MAX_WRONG]),
        wrong_count=len(wrong),
        groups=groups,
        nodes=node_views,
        deployments=tuple(deployments),
        changes=_view_changes(nodes.values()),
    )


def _find_newest(nodes: Iterable[Node], expected: Expected | None) -> Commit | None:
    """Return the newest commit that a node has read: by the branch if it is known, else by time."""
    answers = [node.answer for node in nodes if node.answer is not None]
    commits = [answer.observed for answer in answers if answer.observed is not None]
    positions = expected.positions if expected else {}
    if commits and all(commit.id in positions for commit in commits):
        return min(commits, key=lambda commit: positions[commit.id])
    return max(commits, key=lambda commit: (commit.time_seconds, commit.id), default=None)


# --- what is wrong ----------------------------------------------------------------------------


def _find_trouble(view: DeploymentView) -> Trouble | None:
    """Return what is wrong with a deployment, beyond that a node is dead or something under way."""
    failed = any(standing.phase is FleetPhase.FAILED for standing in view.nodes)
    is_lost = view.wanted_replicas > 0 and view.serving_replicas == 0
    is_placed_nowhere = not view.nodes and not view.stop
    if not failed and not is_placed_nowhere and not (is_lost and view.phase is FleetPhase.UNKNOWN):
        return None
    severity = Severity.CRITICAL if is_lost or is_placed_nowhere else Severity.SERIOUS
    named = [standing.node for standing in view.nodes if standing.phase is FleetPhase.FAILED]
    node = named[0] if len(named) == 1 else None
    sentence = f"{view.group}/{view.model}: {view.sentence}"
    if len(named) > 1:
        sentence += f"; failed on {len(named)} nodes"
    return Trouble(severity, view.group, node, view.model, sentence)


def _miss_group(path: str) -> Trouble:
    sentence = f"{path} cannot be followed, so its nodes are not in this view; correct it in git"
    return Trouble(Severity.WARNING, None, None, None, sentence)


def _hide_group(group: str) -> Trouble:
    sentence = (
        f"only a registry knows the nodes of group {group}, so what they serve is not in this view;"
        " one of them shows it in its own"
    )
    return Trouble(Severity.WARNING, group, None, None, sentence)


def _rank(trouble: Trouble) -> tuple[int, bool, str, str, str, str]:
    """Order by how bad it is; nodes before models, because a node explains its models."""
    return (
        SEVERITY_RANK[trouble.severity],
        trouble.model is not None,
        trouble.group or "",
        trouble.node or "",
        trouble.model or "",
        trouble.sentence,
    )


# --- nodes ------------------------------------------------------------------------------------


def _view_nodes(
    nodes: Iterable[Node],
    deployments: Iterable[DeploymentView],
    wrong: Iterable[Trouble],
    newest: Commit | None,
    positions: Mapping[str, int],
    now: Now,
) -> tuple[NodeView, ...]:
    standings: dict[str, list[tuple[str, Standing]]] = defaultdict(list)
    for deployment in deployments:
        for standing in deployment.nodes:
            standings[standing.node].append((deployment.model, standing))
    accused = {trouble.node: trouble.sentence for trouble in reversed([*wrong]) if trouble.node}
    views = [
        _view_node(node, standings[node.name], accused.get(node.name), newest, positions, now)
        for node in nodes
    ]
    return tuple(sorted(views, key=lambda view: (view.group or "", view.name)))


def _view_node(
    node: Node,
    standings: Sequence[tuple[str, Standing]],
    accusation: str | None,
    newest: Commit | None,
    positions: Mapping[str, int],
    now: Now,
) -> NodeView:
    sighting, answer = node.sighting, node.answer
    state, sentence = _judge(node, standings, accusation)
    has_answered = answer is not None and sighting.answered_at is not None
    answered_at = sighting.answered_at if has_answered else None
    counts = Counter(standing.phase for _, standing in standings)
    disk = answer.disk if answer else None
    return NodeView(
        name=node.name,
        group=node.group,
        address=sighting.target.address,
        state=state,
        sentence=sentence,
        answered_at=None if answered_at is None else timestamp(now.wall_of(answered_at)),
        silent_seconds=None
        if answered_at is None
        else round(max(0.0, now.monotonic - answered_at), 1),
        program_version=answer.program_version if answer else None,
        uptime_seconds=answer.uptime_seconds if answer else None,
        restarts=sighting.restarts,
        clock_ahead_seconds=round(sighting.clock_ahead_seconds, 1) if answer else None,
        observed=_view_commit(answer.observed) if answer else None,
        applied=_view_commit(answer.applied) if answer else None,
        lag=_find_lag(answer.applied, newest, positions) if answer else None,
        disk=DiskView(disk.free_bytes, disk.total_bytes, disk.models_bytes) if disk else None,
        conditions=tuple(
            ConditionView(condition.name, condition.reason, condition.sentence)
            for condition in (answer.broken if answer else ())
        ),
        problems=answer.problems if answer else 0,
        deployments={phase: counts[phase] for phase in PHASES},
    )


def _judge(
    node: Node, standings: Sequence[tuple[str, Standing]], accusation: str | None
) -> tuple[NodeState, str]:
    if not node.is_alive:
        state = NodeState.DEAD if node.was_asked else NodeState.UNASKED
        return state, node.whole_silence
    for condition in node.answer.broken if node.answer else ():
        words = f"{condition.name} does not hold ({condition.reason}): {condition.sentence}"
        return NodeState.TROUBLE, words
    for model, standing in standings:
        if standing.phase is FleetPhase.FAILED:
            return NodeState.TROUBLE, f"{model} failed: {standing.sentence}"
    words = describe_clock(node) or accusation or ""
    if words:
        return NodeState.TROUBLE, words
    for model, standing in standings:
        if standing.phase in (FleetPhase.DEPLOYING, FleetPhase.STOPPING):
            return NodeState.WELL, f"{model}: {standing.sentence}"
    return NodeState.WELL, "nothing is wrong"


def _find_lag(
    applied: Commit | None, newest: Commit | None, positions: Mapping[str, int]
) -> Lag | None:
    if applied is None or newest is None:
        return None
    commits = None
    if applied.id == newest.id:
        commits = 0
    elif applied.id in positions and newest.id in positions:
        commits = max(0, positions[applied.id] - positions[newest.id])
    seconds = max(0.0, newest.time_seconds - applied.time_seconds)
    return Lag(commits, round(seconds, 3))


def _view_commit(commit: Commit | None) -> CommitView | None:
    if commit is None:
        return None
    return CommitView(commit.id, commit.author, commit.subject, timestamp(commit.time_seconds))


# --- groups, counts, changes ------------------------------------------------------------------


def _view_groups(
    nodes: Iterable[NodeView], deployments: Iterable[DeploymentView], expected: Expected | None
) -> tuple[GroupView, ...]:
    enabled = expected.enabled if expected else {}
    own_nodes: dict[str, list[NodeView]] = {name: [] for name in enabled}
    own_deployments: dict[str, list[DeploymentView]] = defaultdict(list)
    for node in nodes:
        if node.group is not None:
            own_nodes.setdefault(node.group, []).append(node)
    for deployment in deployments:
        own_nodes.setdefault(deployment.group, [])
        own_deployments[deployment.group].append(deployment)
    groups = [
        GroupView(
            name=name,
            phase=min(
                (deployment.phase for deployment in own_deployments[name]),
                key=PHASE_RANK.__getitem__,
                default=FleetPhase.STOPPED,
            ),
            enabled=enabled.get(name),
            deployments=_count_phases(own_deployments[name]),
            nodes=_count_states(members),
        )
        for name, members in own_nodes.items()
    ]
    return tuple(sorted(groups, key=lambda group: (PHASE_RANK[group.phase], group.name)))


def _count_phases(deployments: Iterable[DeploymentView]) -> dict[FleetPhase, int]:
    counts = Counter(deployment.phase for deployment in deployments)
    return {phase: counts[phase] for phase in PHASES}


def _count_states(nodes: Iterable[NodeView]) -> dict[NodeState, int]:
    counts = Counter(node.state for node in nodes)
    return {state: counts[state] for state in NodeState}


def _view_changes(nodes: Iterable[Node]) -> tuple[ChangeView, ...]:
    """Return the last changes; one that several nodes made for one commit is one."""
    where: dict[tuple[str, str | None, str, int | None, str, str], dict[str, float]] = {}
    names: dict[tuple[str, str | None, str, int | None, str, str], str | None] = {}
    for node in nodes:
        for change in node.sighting.changes if node.answer else ():
            key = (
                change.commit_id,
                node.group,
                change.model,
                change.to_version,
                change.result.value,
                change.reason,
            )
            names[key] = change.to_name
            times = where.setdefault(key, {})
            times[node.name] = max(change.time_seconds, times.get(node.name, 0.0))
    newest = sorted(where.items(), key=lambda item: max(item[1].values()), reverse=True)
    return tuple(
        ChangeView(timestamp(max(times.values())), *key, tuple(sorted(times)), names[key])
        for key, times in newest[:MAX_CHANGES]
    )
