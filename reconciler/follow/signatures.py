"""Whether commits are signed as a policy asks, and what to do where they are not.

git verifies, with ssh-keygen and gpg, and only its `G` counts: a good signature by a key that is
allowed. Everything after that is for people: why it is not `G` is told from git's letter, the
commit itself and the keys, because git says `B` for an altered commit and for a missing ssh-keygen
alike, and `U` for an unknown key and for an expired one.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import takewhile

from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.objects import Objects, Signature
from reconciler.config_repo.signers import SshSigner
from reconciler.errors import ReconcilerError
from reconciler.model import Commit

COMMIT_UNSIGNED = "CommitUnsigned"
KEY_NOT_ALLOWED = "KeyNotAllowed"
KEY_EXPIRED = "KeyExpired"
KEY_NOT_YET_VALID = "KeyNotYetValid"
KEY_REVOKED = "KeyRevoked"
BAD_SIGNATURE = "BadSignature"
VERIFIER_MISSING = "VerifierMissing"

_BATCH = 200
"""Commits verified by one command: two processes each, well within its deadline."""
_MAX_SUBJECT_CHARACTERS = 60
_SHOWN_ID = 8


class UnverifiedError(ReconcilerError):
    """A commit is not followed because of who signed it, or who did not."""

    reason = COMMIT_UNSIGNED


class _Kind(StrEnum):
    """What a commit is signed with, by the first line of its signature; the value is the tool."""

    SSH = "ssh-keygen"
    GPG = "gpg"
    OTHER = ""


_FIRST_LINES = {
    b"-----BEGIN SSH SIGNATURE-----": _Kind.SSH,
    b"-----BEGIN PGP SIGNATURE-----": _Kind.GPG,
    b"-----BEGIN PGP MESSAGE-----": _Kind.GPG,
}


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks commits of the mirror by the keys that lie in its private git home."""

    mirror: Mirror
    signers: tuple[SshSigner, ...]
    """All SSH keys of the policy, those too whose time is over."""
    now_seconds: float

    def check(self, commit_ids: Sequence[str]) -> str:
        """Return who signed the last of the commits.

        Raises UnverifiedError for the first that is not signed as it must be, GitError when the
        mirror cannot be read.
        """
        signer = ""
        for start in range(0, len(commit_ids), _BATCH):
            batch = commit_ids[start : start + _BATCH]
            with self.mirror.objects() as objects:
                kinds = _find_kinds(objects.read(batch))
                known = _take_known(batch, kinds)
                signatures = objects.read_signatures(known) if known else []
                if len(known) < len(batch):
                    signatures.append(_without_answer(objects, batch[len(known)]))
            for signature in signatures:
                if signature.result != "G":
                    raise self._explain(signature, kinds[signature.commit.id], commit_ids[-1])
                signer = f"{signature.signer} ({signature.key})"
        return signer

    def _explain(self, signature: Signature, kind: _Kind | None, newest_id: str) -> UnverifiedError:
        reason, what = _describe(signature, kind)
        if kind and shutil.which(kind) is None:
            reason = VERIFIER_MISSING
            what = f"cannot be checked: there is no {kind} command on this machine; install it"
        elif kind is _Kind.SSH and reason == KEY_NOT_ALLOWED:
            reason, what = self._find_lapse(signature) or (reason, what)
        if signature.commit.id != newest_id:
            what += (
                f"; it comes with commit {newest_id[:_SHOWN_ID]}, and every new commit must be"
                " signed: make the branch anew without it (git rebase -S signs what it makes)"
            )
        return UnverifiedError(f"{show_commit(signature.commit)} {what}", reason)

    def _find_lapse(self, signature: Signature) -> tuple[str, str] | None:
        """Return why a listed SSH key did not count at the time, None where it is not listed."""
        listed = [signer for signer in self.signers if signer.fingerprint == signature.key]
        made_seconds = signature.commit.time_seconds
        for moment, when in (
            (self.now_seconds, ""),
            (made_seconds, f", and was made {_show_moment(made_seconds)} by its own date"),
        ):
            if not listed or any(signer.may_sign_at(moment) for signer in listed):
                continue
            key = f"is signed by SSH key {signature.key}"
            end = max(signer.before_seconds for signer in listed)
            if moment >= end:
                return KEY_EXPIRED, (
                    f"{key}, whose time ended {_show_moment(end)}{when}; let someone commit whose"
                    " key is in force"
                )
            begin = min(s.after_seconds for s in listed if s.after_seconds > moment)
            return KEY_NOT_YET_VALID, (
                f"{key}, whose time begins {_show_moment(begin)}{when}; let someone commit whose"
                " key is in force"
            )
        return None


def _find_kinds(commits: Mapping[str, bytes]) -> dict[str, _Kind | None]:
    """Return what each commit is signed with, None where it is not signed."""
    return {commit_id: _find_kind(content) for commit_id, content in commits.items()}


def _take_known(commit_ids: Sequence[str], kinds: Mapping[str, _Kind | None]) -> list[str]:
    """Return the commits before the first that git would end at, whatever the others are."""
    return list(takewhile(lambda commit_id: kinds[commit_id] is not _Kind.OTHER, commit_ids))


def _find_kind(content: bytes) -> _Kind | None:
    for line in content.partition(b"\n\n")[0].split(b"\n"):
        name, _, first_line = line.partition(b" ")
        if name == b"gpgsig":
            return _FIRST_LINES.get(first_line.rstrip(), _Kind.OTHER)
    return None


def _without_answer(objects: Objects, commit_id: str) -> Signature:
    """Return what stands for git's word on a commit that git is not asked about."""
    commit = objects.find_commit(commit_id)
    return Signature(commit or Commit(commit_id, "", "", 0.0), "N", "", "")


def show_commit(commit: Commit) -> str:
    """Return a commit as sentences name it."""
    subject = commit.subject[:_MAX_SUBJECT_CHARACTERS]
    return f"commit {commit.id[:_SHOWN_ID]} by {commit.author} ({subject})"


def _describe(signature: Signature, kind: _Kind | None) -> tuple[str, str]:
    """Return the reason and the rest of the sentence, as far as git's letter tells."""
    key = f"key {signature.key or 'of unknown name'}"
    match signature.result, kind:
        case _, None:
            return COMMIT_UNSIGNED, (
                "is not signed; set git to sign (commit.gpgsign, user.signingkey) and commit again"
            )
        case _, _Kind.OTHER:
            return KEY_NOT_ALLOWED, (
                "is signed with neither an SSH nor a GPG key, and nothing else is accepted (no"
                " X.509 certificate either); sign with one of the two"
            )
        case "B", _:
            return BAD_SIGNATURE, (
                "was altered after it was signed, or its signature was damaged; find out who"
                " pushed it, and commit the change anew"
            )
        case "Y" | "X", _:
            return KEY_EXPIRED, (
                f"is signed by GPG {key}, whose time is over; if its end was put off, give the"
                " new export of the key, else let someone commit whose key is in force"
            )
        case "R", _:
            return KEY_REVOKED, (
                f"is signed by GPG {key}, which was revoked; find out who pushed it, and let"
                " someone commit whose key is in force"
            )
        case "N", _:
            return VERIFIER_MISSING, (
                "is signed in a way that this machine's git cannot check; install git 2.34 or"
                f" newer, and {kind}"
            )
    tool = "SSH" if kind is _Kind.SSH else "GPG"
    return KEY_NOT_ALLOWED, (
        f"is signed by {tool} {key}, which is not allowed; if it should be, let an allowed signer"
        " add it to signatures in fleet.yaml, or add it to the node's own list of keys"
    )


def _show_moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return f"at Unix time {seconds:.0f}"  # a commit may bear any date
