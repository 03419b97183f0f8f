"""Writes a commit status: the mark that GitHub and GitLab show beside a commit."""

from reconciler.forge.forges import CommitStatus, Forge
from reconciler.forge.requests import Answer, ForgeError, RefusedError, demand, explain, repeat


def send_status(forge: Forge, status: CommitStatus) -> None:
    """Write a commit status; raises ForgeError with a sentence."""
    try:
        repeat(lambda: demand(forge.set_status(status)))
    except RefusedError as error:
        answer = error.answer
        if _is_said_already(answer):
            return
        raise ForgeError(
            f"{forge.name} took no status: {_explain(forge, status, answer)}"
            f" ({answer.quote(forge.token)})"
        ) from None


def _explain(forge: Forge, status: CommitStatus, answer: Answer) -> str:
    commit = status.commit_id[:10]
    match answer.code:
        case 403:
            return (
                f"the token may not write statuses of {forge.project}; it needs `statuses: write`"
                " at GitHub, scope `api` and the role Developer at GitLab"
            )
        case 404:
            return (
                f"{forge.host} has no {forge.project}, or not commit {commit} in it, or the token"
                " may not see it; check --project and the token, and push the commit first"
            )
        case 422:
            return f"it does not take the status of commit {commit}; push the commit first"
    return explain(answer, forge.host)


def _is_said_already(answer: Answer) -> bool:
    """Tell whether the refusal says that the state is the same as before, as GitLab puts it."""
    return answer.code == 400 and b"Cannot transition status" in answer.content
