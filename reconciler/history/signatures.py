"""Who signed the commits of a trail, for people to read.

git verifies with the user's own GPG keyring, and by the SSH keys that fleet.yaml allows at the
revision that is looked at; where it allows none, by those that the user's git is set to. Nothing
is decided by this: whether a commit is followed, each node judges by itself.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.config_repo.checkout import Checkout
from reconciler.history.objects import in_batches
from reconciler.policy import Signatures

_FORMAT = "%H%x00%G?%x00%GS%x00%GF%x00%GK"
_FIELDS = 5
_BATCH = 200
"""Two processes for each signed commit: well within the deadline of one command."""
_GOOD = "G"
_UNSIGNED = "N"
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

    def __str__(self) -> str:
        if not self.is_signed:
            return "unsigned"
        signed = f"signed by {self.signer}" if self.signer else "signed"
        if self.is_verified:
            return f"{signed} (verified)"
        return f"{signed}, {self.lack}{f' ({self.key})' if self.key else ''}"


def read_signatures(
    checkout: Checkout, commit_ids: Iterable[str], allowed: Signatures
) -> dict[str, Signature]:
    """Return who signed each of the commits; about 10 ms for each one that is signed."""
    with tempfile.NamedTemporaryFile("w", prefix="allowed-signers-") as file:
        file.writelines(f"{' '.join(line.splitlines())}\n" for line in allowed.ssh)
        file.flush()
        # Without any such file git would call a commit signed by SSH unsigned.
        has_own = checkout.succeeds("config", "--get", "gpg.ssh.allowedSignersFile")
        options = []
        if allowed.ssh or not has_own:
            options = ["-c", f"gpg.ssh.allowedSignersFile={file.name}"]
        found: dict[str, Signature] = {}
        for some in in_batches(commit_ids, _BATCH):
            found.update(_read(checkout, options, some))
    return found


def _read(
    checkout: Checkout, options: Sequence[str], commit_ids: Sequence[str]
) -> dict[str, Signature]:
    output = checkout.git(
        *options, "log", "-z", "--no-walk=unsorted", "--stdin", "--no-show-signature",
        "--no-color", "--no-notes", f"--format={_FORMAT}",
        stdin="".join(f"{commit_id}\n" for commit_id in commit_ids).encode(),
    )  # fmt: skip
    fields = output.split("\0")
    starts = range(0, len(fields) - _FIELDS, _FIELDS)
    return {fields[start]: _judge(*fields[start + 1 : start + _FIELDS]) for start in starts}


def _judge(result: str, signer: str, fingerprint: str, key: str) -> Signature:
    if result == _UNSIGNED:
        return Signature(is_signed=False)
    name = fingerprint or key
    if result == _GOOD:
        return Signature(is_signed=True, is_verified=True, signer=signer, key=name)
    unknown = "key not trusted" if signer else "key unknown"
    lack = _EXPLANATIONS.get(result, unknown)
    return Signature(is_signed=True, signer=signer, key=name, lack=lack)
