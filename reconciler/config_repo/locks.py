"""Whether a lock file fits the deployment beside it."""

from reconciler.config_repo.documents import Document
from reconciler.config_repo.yaml_text import Mistake
from reconciler.model import Deployment, Lock


def find_misfits(deployment: Deployment, lock: Lock, document: Document) -> list[Mistake]:
    """Return what the lock says otherwise than its deployment; `document` is the lock's own.

    A lock that does not fit is refused with its deployment: which of the two is meant, only a
    person can say.
    """
    remedy = f"run `reconciler lock {deployment.model}` and commit both files"
    mistakes = []
    if lock.model != deployment.model:
        message = f"this is the lock of {lock.model}, not of {deployment.model}; {remedy}"
        mistakes.append(document.complain(message, "model"))
    if lock.source != deployment.source:
        message = f"{deployment.path} takes its versions from {deployment.source} by now; {remedy}"
        mistakes.append(document.complain(message, "source"))
    show = deployment.scheme.show
    for locked in lock.versions.values():
        if locked.title != show(locked.version):
            # The number is what a node goes by, and it may be another version's by now.
            message = (
                f"version {locked.title} is locked as number {locked.version}, which version_scheme"
                f" in {deployment.path} ({deployment.scheme}) does not say; {remedy}"
            )
            return [*mistakes, document.complain(message, "locked")]
    if deployment.version not in (None, lock.version):
        message = (
            f"{deployment.path} wants version {show(deployment.version)}, but {lock.title} is"
            f" locked; {remedy}"
        )
        mistakes.append(document.complain(message, "version"))
    missing = {lock.version, *deployment.labels.values()} - lock.versions.keys()
    if missing:
        names = ", ".join(map(show, sorted(missing)))
        mistakes.append(document.complain(f"version {names} is not locked; {remedy}", "locked"))
    if len(document.fields["locked"]) > len(lock.versions):
        mistakes.append(document.complain(f"a version is locked twice; {remedy}", "locked"))
    return mistakes
