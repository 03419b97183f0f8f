"""What is wrong in one file beyond its schema: times that do not exist, waves that never end."""

from itertools import pairwise

from reconciler.config_repo.build import build_policy
from reconciler.config_repo.documents import Document
from reconciler.config_repo.signers import is_gpg_key, parse_signer
from reconciler.config_repo.yaml_text import Mistake
from reconciler.model import Strategy
from reconciler.model.group import AGENT_FLAGS, flag_name
from reconciler.planning.freeze import find_mistake


def find_rule_mistakes(document: Document) -> list[Mistake]:
    """Return what no node could follow in a fleet.yaml that its schema allows."""
    mistakes = []
    policy = build_policy(document)
    for index, freeze in enumerate(policy.freezes):
        found = find_mistake(freeze)
        if found is not None:
            field, message = found
            mistakes.append(document.complain(message, "freezes", index, field))
    for index, line in enumerate(policy.signatures.ssh):
        if parse_signer(line) is None:
            mistakes.append(document.complain(_NO_SIGNER, "signatures", "ssh", index))
    for index, block in enumerate(policy.signatures.gpg):
        if not is_gpg_key(block):
            mistakes.append(document.complain(_NO_GPG_KEY, "signatures", "gpg", index))
    return mistakes


def find_server_mistakes(document: Document) -> list[Mistake]:
    """Return which of a group's flags for the server no node could run it with."""
    mistakes = []
    flags = document.fields.get("serving", {}).get("flags", ())
    names = [flag_name(flag) for flag in flags]
    for index, name in enumerate(names):
        message = None
        if name in AGENT_FLAGS:
            message = (
                f"the agent relies on --{name}, which is set where the node's container is"
                " started; remove it here"
            )
        elif name in names[:index]:
            message = f"--{name} is there twice; remove one"
        if message is not None:
            mistakes.append(document.complain(message, "serving", "flags", index))
    return mistakes


def find_rollout_mistakes(document: Document) -> list[Mistake]:
    """Return what no node could do of a deployment's rollout that its schema allows."""
    fields = document.fields.get("rollout", {})
    waves = fields.get("waves", ())
    mistakes = []
    for index, (before, wave) in enumerate(pairwise(waves), 1):
        is_comparable = type(before) is type(wave)
        if before == "100%" or (is_comparable and _size(wave) <= _size(before)):
            message = f"wave {wave} is no more than {before} before it; each must have more nodes"
            mistakes.append(document.complain(message, "rollout", "waves", index))
    if waves and waves[-1] != "100%":
        message = "the last wave must be 100%, or some nodes would never have the new version"
        mistakes.append(document.complain(message, "rollout", "waves", len(waves) - 1))
    if "pause" in fields and len(waves) < 2:
        message = "pause is the time between waves; add waves such as [1, 25%, 100%] or remove it"
        mistakes.append(document.complain(message, "rollout", "pause"))
    if "golden" in fields and fields.get("strategy") == Strategy.RECREATE:
        message = (
            "golden requests need the new version loaded beside the old one, which strategy"
            " recreate says does not fit; remove one of the two"
        )
        mistakes.append(document.complain(message, "rollout", "golden"))
    return mistakes


def _size(wave: int | str) -> int:
    return wave if isinstance(wave, int) else int(wave.removesuffix("%"))


# Taken as it is, such a line could leave nobody who may sign the commit that repairs it.
_NO_SIGNER = (
    "this is not a line of an allowed signers file; write `alice@example.com` and the text of the"
    ' key\'s .pub file, with options such as valid-before="20270101Z" between them'
)
_NO_GPG_KEY = (
    "this is not a whole public key; write the block, all its lines and the empty one included, as"
    " `gpg --armor --export KEY` prints it, below `- |`"
)
