"""What outlives a restart of whom this node trusts: a small JSON file beside the mirror.

The rules are kept with the commit, so that neither a damaged mirror nor a broken fleet.yaml can
make a node forget that commits must be signed.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from reconciler.config_repo.objects import check_object_id
from reconciler.files import write_atomically
from reconciler.policy import SignatureMode, Signatures

log = logging.getLogger(__name__)

_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Trusted:
    """The commit that was followed last, and by its rules who may sign the next."""

    commit_id: str
    signatures: Signatures
    signer: str = ""
    """Who signed it; empty where nobody asked."""


def save(file: Path, origin: str, trusted: Trusted) -> None:
    """Write what is trusted in the repo and branch that `origin` names; raises OSError."""
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
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(content, indent=1).encode(), mode=0o600)


def load(file: Path, origin: str) -> Trusted | None:
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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s cannot be used, so the next commit is taken as the first: %s", file, error)
        return None
