"""The words of the system as frozen values: what is desired, available, local and served.

Four snapshots of the world go into the plan. Each is read by one package (config_repo, sources,
store, serving) and none of them changes once read, so a plan can be computed, tested and replayed
without touching anything.
"""

from reconciler.model.available import Available, Listing, Query, Snapshot, StoredFile, Unavailable
from reconciler.model.desired import Commit, Deployment, Desired, Lock, LockedVersion, Problem
from reconciler.model.group import Group, Member, Membership, Quota, Registry, ServerSpec
from reconciler.model.local import Local, LocalVersion, Staged
from reconciler.model.outcome import Condition, Outcome, Pause, Phase, Progress
from reconciler.model.rollout import Golden, Rollout, Strategy, Wave
from reconciler.model.scheme import NUMBER, Rule, VersionScheme
from reconciler.model.served import Ask, Served, ServerConfig, State, VersionStatus, share

__all__ = [
    "NUMBER",
    "Ask",
    "Available",
    "Commit",
    "Condition",
    "Deployment",
    "Desired",
    "Golden",
    "Group",
    "Listing",
    "Local",
    "LocalVersion",
    "Lock",
    "LockedVersion",
    "Member",
    "Membership",
    "Outcome",
    "Pause",
    "Phase",
    "Problem",
    "Progress",
    "Query",
    "Quota",
    "Registry",
    "Rollout",
    "Rule",
    "Served",
    "ServerConfig",
    "ServerSpec",
    "Snapshot",
    "Staged",
    "State",
    "StoredFile",
    "Strategy",
    "Unavailable",
    "VersionScheme",
    "VersionStatus",
    "Wave",
    "share",
]
