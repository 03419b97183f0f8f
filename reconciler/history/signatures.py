"""Who signed the commits of a trail, for people to read.

git verifies with the user's own GPG keyring, and by the SSH keys that fleet.yaml allows at the
revision that is looked at; where it allows none, by those that the user's git is set to. Nothing
is decided by this: whether a commit is followed, each node judges by itself.
"""

import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from reconciler.config_repo.checkout import Checkout
from reconciler.errors import GitError
from reconciler.history.objects import in_batches, read_texts
from reconciler.policy import Signatures

_FORMAT = "%H%x00%G?%x00%GS%x00%GF%x00%GK"
_FIELDS = 5
MAX_VERIFIED = 300
"""Two processes and 10 ms for each: a long past would take minutes."""
_BATCH = 25
"""Verified by one git command; so many commands at once as there are processors."""
_GOOD = "G"
_NONE = "N"
_EXPLANATIONS = {
    "B": "signature is wrong: the commit was altered, or cannot be verified here",
    "R": "key was revoked",
    "X": "signature has expired",
    "Y": "key has expired",
}


@dataclass(frozen=True, slots=True)
class Signature:
    """What git says of one commit's signature."""

    is_signed: bool
    is_verified: bool = False
    """Whether it is good, and by a key that is known and in force."""
    signer: str = ""
    key: str = ""
    """Fingerprint or id of the key."""
    lack: str = ""
    """Why it is not verified, in a few words."""
    is_checked: bool = True
    """False where there were too many to look at this one."""

    def __str__(self) -> str:
        if not self.is_signed:
            return "unsigned"
        signed = f"signed by {self.signer}" if self.signer else "signed"
        if self.is_verified:
            return f"{signed} (verified)"
        return f"{signed}, {self.lack}{f' ({self.key})' if self.key else ''}"


_UNSIGNED = Signature(is_signed=False)
_UNCHECKED = Signature(is_signed=True, lack="not verified here", is_checked=False)
_UNREADABLE = Signature(is_signed=True, lack="by no known method")


def read_signatures(
    checkout: Checkout, commit_ids: Iterable[str], allowed: Signatures
) -> dict[str, Signature]:
    """Return who signed each of the commits; of those that are signed the first are verified."""
    ids = list(dict.fromkeys(commit_ids))
    signed = _find_signed(checkout, ids)
    found = {own: _UNCHECKED if own in signed else _UNSIGNED for own in ids}
    batches = in_batches([own for own in ids if own in signed][:MAX_VERIFIED], _BATCH)
    with tempfile.NamedTemporaryFile("w", prefix="allowed-signers-") as file:
        file.writelines(f"{' '.join(line.splitlines())}\n" for line in allowed.ssh)
        file.flush()
        # Without any such file git would call a commit signed by SSH unsigned.
        has_own = checkout.succeeds("config", "--get", "gpg.ssh.allowedSignersFile")
        options = []
        if allowed.ssh or not has_own:
            options = ["-c", f"gpg.ssh.allowedSignersFile={file.name}"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for some in pool.map(partial(_read, checkout, options), batches):
                found |= some
    return found


def _find_signed(checkout: Checkout, commit_ids: Sequence[str]) -> set[str]:
    """Return the commits that bear a signature, by their own text, which takes no time."""
    signed = set()
    for some in in_batches(commit_ids):
        for own, text in read_texts(checkout, some).items():
            if b"\ngpgsig " in text.partition(b"\n\n")[0]:
                signed.add(own)
    return signed


def _read(
    checkout: Checkout, options: Sequence[str], commit_ids: Sequence[str]
) -> dict[str, Signature]:
    try:
        output = checkout.git(
            *options, "log", "-z", "--no-walk=unsorted", "--stdin", "--no-show-signature",
            "--no-color", "--no-notes", f"--format={_FORMAT}",
            stdin="".join(f"{commit_id}\n" for commit_id in commit_ids).encode(),
        )  # fmt: skip
    except GitError:
        # git gives up at a signature of no kind it knows; the others must not be lost with it.
        if len(commit_ids) == 1:
            return {commit_ids[0]: _UNREADABLE}
        halves = in_batches(commit_ids, (len(commit_ids) + 1) // 2)
        return {
            own: found for half in halves for own, found in _read(checkout, options, half).items()
        }
    fields = output.split("\0")
    starts = range(0, len(fields) - _FIELDS, _FIELDS)
    return {fields[start]: _judge(*fields[start + 1 : start + _FIELDS]) for start in starts}


def _judge(result: str, signer: str, fingerprint: str, key: str) -> Signature:
    if result == _NONE:
        return _UNSIGNED
    name = fingerprint or key
    if result == _GOOD:
        return Signature(is_signed=True, is_verified=True, signer=signer, key=name)
    unknown = "key not trusted" if signer else "key unknown"
    lack = _EXPLANATIONS.get(result, unknown)
    return Signature(is_signed=True, signer=signer, key=name, lack=lack)
