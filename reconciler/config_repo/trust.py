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

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.config_repo.desired import FLEET_FILE, ConfigRepo
from reconciler.config_repo.keyring import Keyring, parse_signers
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.node_keys import NodeKeys, read_node_keys
from reconciler.config_repo.objects import check_object_id
from reconciler.config_repo.private_git import MirrorSettings, PrivateGit
from reconciler.config_repo.signatures import (
    VERIFIER_MISSING,
    UnverifiedError,
    Verifier,
    show_commit,
)
from reconciler.errors import SettingsError
from reconciler.files import write_atomically
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
_MAX_BYTES = 16 * 1024 * 1024
_SHOWN_ID = 8


@dataclass(frozen=True, slots=True)
class Trusted:
    """The commit that was followed last, and by its rules who may sign the next."""

    commit_id: str
    signatures: Signatures
    signer: str = ""
    """Who signed it; empty where nobody asked."""


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
        self._trusted = self._saved = _load(self._file, self._origin)
        self._is_unwritable = False
        self._refused: tuple[object, UnverifiedError] | None = None

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
        rules = choose_rules(self._find_fleet_rules(commit), self._node_keys)
        if rules.mode is SignatureMode.OFF:
            return ""
        now_seconds = self._now_seconds()
        signers = parse_signers(rules.ssh)
        in_force = tuple(signer for signer in signers if signer.may_sign_at(now_seconds))
        question = (commit.id, trusted, rules, in_force)
        if self._refused is not None and self._refused[0] == question:
            raise self._refused[1]
        try:
            if not signers and not rules.gpg:
                raise UnverifiedError(_NO_KEYS, NO_ALLOWED_KEYS)
            commit_ids = self._find_unchecked(commit, rules.mode)
            self._keyring.install(in_force, rules.gpg)
            signer = Verifier(self._mirror, signers, now_seconds).check(commit_ids)
        except UnverifiedError as error:
            refusal = self._refuse(error)
            # A verdict on the same question stays the same, and costs nothing at the next poll;
            # but a missing command may be there by then.
            if error.reason != VERIFIER_MISSING:
                self._refused = (question, refusal)
            raise refusal from None
        return signer

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
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, _dump(self._origin, self._trusted), mode=0o600)
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
        if self._trusted is not None:
            return self._trusted.signatures
        policy = self._repo.read_policy(commit)
        # A first fleet.yaml that cannot be read names nobody; the next commit is a first one again.
        return policy.signatures if policy else Signatures()

    # --- the commits --------------------------------------------------------------------------

    def _find_unchecked(self, commit: Commit, mode: SignatureMode) -> list[str]:
        """Return the commits that must be signed for `commit` to be followed."""
        if self._trusted is None:
            return [commit.id]
        trusted_id = self._trusted.commit_id
        with self._mirror.objects() as objects:
            if objects.find_commit(trusted_id) is None:
                raise UnverifiedError(
                    f"{show_commit(commit)} does not contain commit {trusted_id[:_SHOWN_ID]}, which"
                    " this node followed last and which is nowhere any more, so that an old state"
                    " may have been put back; push a branch that contains it, or delete"
                    f" {self._file} and restart the agent to trust the branch as it is",
                    TRUSTED_COMMIT_LOST,
                )
            limit = MAX_RANGE + 1 if mode is SignatureMode.RANGE else 1
            new_ids = objects.list_new(commit.id, trusted_id, limit)
        if not new_ids:
            raise UnverifiedError(
                f"{show_commit(commit)} is older than commit {trusted_id[:_SHOWN_ID]}, which this"
                " node followed last: the branch was put back by force; to go back, commit a"
                " revert (git revert) and push it",
                HISTORY_REWOUND,
            )
        if len(new_ids) > MAX_RANGE:
            raise UnverifiedError(
                f"{show_commit(commit)} comes with more than {MAX_RANGE:,} commits that"
                f" {trusted_id[:_SHOWN_ID]} does not contain, too many to verify; push them in"
                " parts, or let the node check the newest alone for once (signature_mode: head)",
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


def _dump(origin: str, trusted: Trusted) -> bytes:
    signatures = trusted.signatures
    content = {
        "origin": origin,
        "commit": trusted.commit_id,
        "signer": trusted.signer,
        "signatures": {
            "mode": signatures.mode,
            "ssh": signatures.ssh,
            "gpg": signatures.gpg,
        },
    }
    return json.dumps(content, indent=1).encode()


def _load(file: Path, origin: str) -> Trusted | None:
    """Return what the file says; nothing where there is none, or one of another repo."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError("it is larger than such a file can be")
        content = json.loads(file.read_bytes())
        if content["origin"] != origin:
            return None
        check_object_id(content["commit"])
        item = content["signatures"]
        signatures = Signatures(
            SignatureMode(item["mode"]), tuple(map(str, item["ssh"])), tuple(map(str, item["gpg"]))
        )
        return Trusted(content["commit"], signatures, str(content["signer"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used, so the next commit is taken as the first: %s", file, error)
        return None
