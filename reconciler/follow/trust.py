"""Which commits of the config repo this node may follow.

The rules that count are those of the commit that was followed last: whoever may sign today says
who may sign tomorrow, and a commit cannot let itself in. So a commit that switches signatures on
is itself admitted by the old rules, and the first that must be signed is the one after it; one
that switches them off, or changes the keys, must be signed by a key that is allowed now. Rules
given to the node win over those in git.

What was followed last is kept beside the mirror, with its rules, so that neither a restart nor a
damaged mirror forgets whom to trust. While there is nothing yet (a new node, another repo or
branch) the newest commit is held against its own rules, its head alone even in mode `range`.
Someone who may push anything decides then; keys given to the node close that gap.

What is refused is not read for anything but this check, and changes nothing.
"""

import logging
import time
from collections.abc import Callable

from reconciler.config_repo.desired import FLEET_FILE, ConfigRepo
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings, PrivateGit
from reconciler.config_repo.signers import parse_signers
from reconciler.errors import SettingsError
from reconciler.follow import trusted_file
from reconciler.follow.keyring import Keyring
from reconciler.follow.node_keys import NodeKeys, read_node_keys
from reconciler.follow.signatures import (
    KEY_NOT_YET_VALID,
    VERIFIER_MISSING,
    UnverifiedError,
    Verifier,
    show_commit,
)
from reconciler.follow.trusted_file import Trusted
from reconciler.model import Commit, Condition, Desired
from reconciler.planning.conditions import SIGNATURES_OFF, SOURCE_VERIFIED
from reconciler.policy import SignatureMode, Signatures
from reconciler.settings import Settings

log = logging.getLogger(__name__)

HISTORY_REWOUND = "HistoryRewound"
TRUSTED_COMMIT_LOST = "TrustedCommitLost"
RANGE_TOO_LONG = "RangeTooLong"
NO_ALLOWED_KEYS = "NoAllowedKeys"
KEYS_UNREADABLE = "KeysUnreadable"
VERIFIED = "Verified"

MAX_RANGE = 10_000
"""Commits verified at once: some minutes' work."""
MAX_STEPS = 1_000
"""Changes of fleet.yaml gone through one by one, the newest of them."""
_REFUSAL_SECONDS = 3600.0
"""After this, or once the clock was set by as much, a refusal is thought over: gpg goes by it."""
_SHOWN_ID = 8


class Trust:
    """Decides on commits, and remembers the last that was followed. Blocking, for one thread."""

    def __init__(
        self,
        mirror: Mirror,
        repo: ConfigRepo,
        settings: Settings,
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        """Raises SettingsError when the keys given to the node cannot be used."""
        self._mirror = mirror
        self._repo = repo
        self._settings = settings
        self._now_seconds = now_seconds
        self._keyring = Keyring(PrivateGit(MirrorSettings.of(settings)))
        self._file = settings.state_dir / "trusted.json"
        self._origin = f"{mirror.origin} {settings.branch}"
        self._node_keys = read_node_keys(settings)
        self._trusted = self._saved = trusted_file.load(self._file, self._origin)
        self._is_unwritable = False
        self._refused: tuple[object, UnverifiedError, float] | None = None
        """The last question that was answered by a refusal, the refusal and when that was."""

    def find_start(self) -> Commit | None:
        """Return the commit to begin with, without the network; None where there is none.

        Where commits must be signed it is the last that was followed, else the newest here.
        """
        newest = self._mirror.head()
        trusted = self._trusted
        if newest is None or trusted is None or not self._asks(trusted.signatures):
            return newest
        with self._mirror.objects() as objects:
            return objects.find_commit(trusted.commit_id)

    def check(self, commit: Commit) -> str:
        """Return who signed a commit that may be followed, empty where nobody needs to have.

        Raises UnverifiedError where it may not be followed, and GitError or DeadlineError when
        that cannot be told.
        """
        trusted = self._trusted
        if trusted is not None and trusted.commit_id == commit.id:
            return trusted.signer
        try:
            self._node_keys = read_node_keys(self._settings)
        except SettingsError as error:
            # Without them nobody can be told apart, and the fleet's keys are not to stand in.
            raise self._refuse(UnverifiedError(f"{error}", KEYS_UNREADABLE)) from None
        question = (commit.id, trusted, self._node_keys)
        now_seconds = self._now_seconds()
        if self._refused is not None:
            earlier, refusal, refused_at_seconds = self._refused
            if earlier == question and abs(now_seconds - refused_at_seconds) < _REFUSAL_SECONDS:
                raise refusal
        reasons: set[str] = set()
        try:
            return self._check_by_steps(commit, reasons)
        except UnverifiedError as error:
            refusal = self._refuse(error)
            # The same question has the same answer, and costs nothing at the next poll, unless
            # time or a person at this machine may change it.
            is_lasting = not {error.reason, *reasons} & {VERIFIER_MISSING, KEY_NOT_YET_VALID}
            self._refused = (question, refusal, now_seconds) if is_lasting else None
            raise refusal from None

    def follow(self, desired: Desired, signer: str) -> None:
        """Remember a commit that passed the check and was read."""
        signatures = desired.policy.signatures
        if any(problem.path == FLEET_FILE for problem in desired.problems):
            # A mistake there must not do what only a signed change may: switch signatures off.
            if self._trusted is None and signatures == Signatures():
                return
            signatures = self._trusted.signatures if self._trusted else signatures
        self._trusted = Trusted(desired.commit.id, signatures, signer)
        self.save()

    def save(self) -> None:
        """Write down what was followed last, if that was not done yet."""
        if self._trusted is None or self._trusted == self._saved:
            return
        try:
            trusted_file.save(self._file, self._origin, self._trusted)
        except OSError as error:
            # A restart would begin with an older commit, and check once more what came after it.
            if not self._is_unwritable:
                log.warning("%s cannot be written, trying on (%s)", self._file, error.strerror)
            self._is_unwritable = True
        else:
            self._saved, self._is_unwritable = self._trusted, False

    def describe(self) -> Condition:
        """Return what is known of the commit in force; to be asked when nothing is refused."""
        trusted = self._trusted
        if trusted is None or not self._asks(trusted.signatures):
            return SIGNATURES_OFF
        what = f"commit {trusted.commit_id[:_SHOWN_ID]}"
        if trusted.signer:
            return Condition(
                SOURCE_VERIFIED, True, VERIFIED, f"{what} is signed by {trusted.signer}"
            )
        sentence = f"{what} was followed before commits had to be signed; the next must be"
        return Condition(SOURCE_VERIFIED, True, VERIFIED, sentence)

    # --- the rules ----------------------------------------------------------------------------

    def _asks(self, fleet: Signatures) -> bool:
        return choose_rules(fleet, self._node_keys).mode is not SignatureMode.OFF

    def _find_fleet_rules(self, commit: Commit) -> Signatures:
        if self._node_keys.is_complete:
            return Signatures()
        if self._trusted is not None:
            return self._trusted.signatures
        policy = self._repo.read_policy(commit)
        # A first fleet.yaml that cannot be read names nobody; the next commit is a first one again.
        return policy.signatures if policy else Signatures()

    # --- the commits --------------------------------------------------------------------------

    def _check_by_steps(self, commit: Commit, reasons: set[str]) -> str:
        """Return who signed the commit, by the rules that were trusted when it was made.

        `reasons` takes why a change of the rules on the way was not followed.
        """
        fleet = self._find_fleet_rules(commit)
        base_id = self._trusted.commit_id if self._trusted else None
        for step in self._find_steps(commit):
            try:
                self._check_by_rules(step, base_id, fleet)
            except UnverifiedError as error:
                # As on a node that saw it alone: it changes no rule, unless what follows vouches.
                reasons.add(error.reason)
                continue
            base_id, policy = step.id, self._repo.read_policy(step)
            fleet = policy.signatures if policy else fleet
        return self._check_by_rules(commit, base_id, fleet)

    def _find_steps(self, commit: Commit) -> list[Commit]:
        """Return the commits since the trusted one, before `commit`, that changed fleet.yaml."""
        if self._trusted is None or self._node_keys.is_complete:
            return []
        path = f"{self._settings.path.strip('/')}/{FLEET_FILE}".lstrip("/")
        with self._mirror.objects() as objects:
            if objects.find_commit(self._trusted.commit_id) is None:
                return []
            changes = objects.list_changes(commit.id, self._trusted.commit_id, path, MAX_STEPS)
            found = [objects.find_commit(commit_id) for commit_id in changes]
        return [step for step in found if step is not None and step.id != commit.id]

    def _check_by_rules(self, commit: Commit, base_id: str | None, fleet: Signatures) -> str:
        """Return who signed the commit; all since `base_id` are checked in mode `range`."""
        rules = choose_rules(fleet, self._node_keys)
        if rules.mode is SignatureMode.OFF:
            return ""
        now_seconds = self._now_seconds()
        signers = parse_signers(rules.ssh)
        if not signers and not rules.gpg:
            raise UnverifiedError(_NO_KEYS, NO_ALLOWED_KEYS)
        commit_ids = self._find_unchecked(commit, base_id, rules.mode)
        in_force = [signer for signer in signers if signer.may_sign_at(now_seconds)]
        self._keyring.install(in_force, rules.gpg)
        return Verifier(self._mirror, signers, now_seconds).check(commit_ids)

    def _find_unchecked(
        self, commit: Commit, base_id: str | None, mode: SignatureMode
    ) -> list[str]:
        """Return the commits that must be signed for `commit` to be followed after `base_id`."""
        if base_id is None:
            return [commit.id]
        base = f"commit {base_id[:_SHOWN_ID]}"
        with self._mirror.objects() as objects:
            if objects.find_commit(base_id) is None:
                raise UnverifiedError(
                    f"{show_commit(commit)} does not contain {base}, which this node followed last"
                    " and which is nowhere any more, so that an old state may have been put back;"
                    f" push a branch that contains it, or delete {self._file} and restart the agent"
                    " to trust the branch as it is",
                    TRUSTED_COMMIT_LOST,
                )
            limit = MAX_RANGE + 1 if mode is SignatureMode.RANGE else 1
            new_ids = objects.list_new(commit.id, base_id, limit)
        if not new_ids:
            raise UnverifiedError(
                f"{show_commit(commit)} is older than {base}, which this node followed last: the"
                " branch was put back by force; to go back, commit a revert (git revert) and push"
                " it",
                HISTORY_REWOUND,
            )
        if len(new_ids) > MAX_RANGE:
            raise UnverifiedError(
                f"{show_commit(commit)} comes with more than {MAX_RANGE:,} commits that {base} does"
                " not contain, too many to verify; push them in parts, or let the node check the"
                " newest alone for once (signature_mode: head)",
                RANGE_TOO_LONG,
            )
        return new_ids

    def _refuse(self, error: UnverifiedError) -> UnverifiedError:
        """Return the error with what happens meanwhile."""
        stays = "nothing is changed on this node until then"
        if self._trusted is not None:
            stays = f"commit {self._trusted.commit_id[:_SHOWN_ID]} stays in force"
        return UnverifiedError(f"{error}; {stays}", error.reason)


def choose_rules(fleet: Signatures, node: NodeKeys) -> Signatures:
    """Return whose signatures count: the node's own mode and keys win over the fleet's."""
    mode = fleet.mode if node.mode is None else node.mode
    if node.ssh or node.gpg:
        return Signatures(mode, node.ssh, node.gpg)
    return Signatures(mode, fleet.ssh, fleet.gpg)


_NO_KEYS = (
    "commits must be signed, but no key is allowed to sign that can be used; give the node keys"
    " (allowed_signers_file, gpg_keys_file), or signature_mode off, and restart the agent, until"
    " fleet.yaml names keys under signatures"
)
