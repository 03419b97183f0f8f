"""What is wrong in fleet.yaml beyond its schema: times that do not exist, keys that are none."""

from reconciler.config_repo.build import build_policy
from reconciler.config_repo.documents import Document
from reconciler.config_repo.signers import is_gpg_key, parse_signer
from reconciler.config_repo.yaml_text import Mistake
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


# Taken as it is, such a line could leave nobody who may sign the commit that repairs it.
_NO_SIGNER = (
    "this is not a line of an allowed signers file; write `alice@example.com` and the text of the"
    ' key\'s .pub file, with options such as valid-before="20270101Z" between them'
)
_NO_GPG_KEY = (
    "this is not a whole public key; write the block, all its lines and the empty one included, as"
    " `gpg --armor --export KEY` prints it, below `- |`"
)
