"""What is wrong in fleet.yaml beyond its schema: times that do not exist."""

from reconciler.config_repo.build import build_policy
from reconciler.config_repo.documents import Document
from reconciler.config_repo.yaml_text import Mistake
from reconciler.planning.freeze import find_mistake


def find_rule_mistakes(document: Document) -> list[Mistake]:
    """Return what no node could follow in a fleet.yaml that its schema allows."""
    mistakes = []
    for index, freeze in enumerate(build_policy(document).freezes):
        found = find_mistake(freeze)
        if found is not None:
            field, message = found
            mistakes.append(document.complain(message, "freezes", index, field))
    return mistakes
