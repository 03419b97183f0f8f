"""Keeps one comment under a pull or merge request up to date.

The comment is found again by its first line, a marker that is not shown. Only one that our own
token wrote is taken: into anybody else's the text could be written as well, but they could change
it afterwards, and a reviewer would read their words as ours. GitHub does not tell the token of an
app, such as a workflow's, who it is; any bot's comment is then taken for ours.

A try that failed by chance is made again from the beginning, with the look at what is there. So a
comment that was written, though its answer was lost, is not written twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Any, Final

from reconciler.forge.forges import Forge
from reconciler.forge.requests import Answer, ForgeError, RefusedError, ask, demand, explain, repeat

MAX_PAGES: Final = 50
_NOT_OURS_TO_CHANGE = (403, 404)
_ODD = "is no such API, check --api: it answered something else when asked"


class Deed(StrEnum):
    """What is done about the comment."""

    MADE = "made"
    UPDATED = "updated"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Written:
    """What was done, and to which comment."""

    deed: Deed
    comment_id: int | None
    """None where there is none yet, as nothing is done."""
    url: str | None
    """None where the forge names none, as GitLab."""


def put_comment(
    forge: Forge, request: int, marker: str, text: str, *, is_dry_run: bool = False
) -> Written:
    """Write `text` into our comment under a request, a new one where there is none.

    The same text as there is already is not written again. A dry run only looks. Raises ForgeError
    with a sentence.
    """
    try:
        return repeat(lambda: _put(forge, request, marker, text, is_dry_run=is_dry_run))
    except RefusedError as error:
        raise ForgeError(
            f"{forge.name} took no comment: {_explain(forge, request, error.answer)}"
            f" ({error.answer.quote(forge.token)})"
        ) from None


def _put(forge: Forge, request: int, marker: str, text: str, *, is_dry_run: bool) -> Written:
    found = _find(forge, request, marker)
    if found is not None and _is_same(found["body"], text):
        return _describe(Deed.LEFT, found)
    if is_dry_run:
        return _describe(Deed.MADE if found is None else Deed.UPDATED, found)
    if found is not None:
        try:
            demand(forge.change_comment(request, found["id"], text))
        except RefusedError as error:
            if error.answer.code not in _NOT_OURS_TO_CHANGE:
                raise
        else:
            return _describe(Deed.UPDATED, found)
    return _describe(Deed.MADE, demand(forge.make_comment(request, text)).read_json())


def _find(forge: Forge, request: int, marker: str) -> dict[str, Any] | None:
    """Return the oldest comment that begins with the marker and is ours, None without one."""
    marked = (comment for comment in _list(forge, request) if _is_marked(comment, marker))
    first = next(marked, None)
    if first is None:
        return None
    me = _ask_who(forge)
    ours = (found for found in chain([first], marked) if _is_ours(forge.author(found), me))
    return next(ours, None)


def _is_marked(comment: dict[str, Any], marker: str) -> bool:
    body = comment.get("body")
    return (
        isinstance(body, str)
        and isinstance(comment.get("id"), int)
        and body.splitlines()[:1] == [marker]
    )


def _list(forge: Forge, request: int) -> Iterator[dict[str, Any]]:
    for page in range(1, MAX_PAGES + 1):
        # The page is counted here: a URL that the answer names could lead the token elsewhere. And
        # a short page is no sign of the end, since GitLab leaves out what the token may not see.
        answer = demand(forge.list_comments(request, page))
        content = answer.read_json()
        if not isinstance(content, list):
            raise ForgeError(f"{forge.name} took no comment: {forge.host} {_ODD} for comments")
        yield from (comment for comment in content if isinstance(comment, dict))
        if not answer.has_next_page:
            return
    raise ForgeError(
        f"{forge.name} took no comment: {forge.project} has more than {MAX_PAGES} pages of comments"
        f" under {request}, and ours is not on the first ones; remove some"
    )


def _ask_who(forge: Forge) -> dict[str, Any] | None:
    """Return the account that the token belongs to, None for an app's."""
    answer = ask(forge.ask_who())
    if answer.code == 403 and forge.has_apps:
        return None
    if not answer.is_good:
        raise RefusedError(answer)
    content = answer.read_json()
    if not isinstance(content, dict) or not isinstance(content.get("id"), int):
        raise ForgeError(f"{forge.name} took no comment: {forge.host} {_ODD} whose the token is")
    return content


def _is_ours(author: Any, me: dict[str, Any] | None) -> bool:
    if not isinstance(author, dict):
        return False
    return bool(author.get("type") == "Bot" if me is None else author.get("id") == me["id"])


def _is_same(before: str, after: str) -> bool:
    """Compare as people read: forges differ in what they make of line ends."""
    return before.splitlines() == after.splitlines()


def _describe(deed: Deed, comment: Any) -> Written:
    fields = comment if isinstance(comment, dict) else {}
    number, url = fields.get("id"), fields.get("html_url")
    is_link = isinstance(url, str) and re.fullmatch(r"https?://[!-~]{1,500}", url)
    return Written(deed, number if isinstance(number, int) else None, url if is_link else None)


def _explain(forge: Forge, request: int, answer: Answer) -> str:
    match answer.code:
        case 403:
            return (
                f"the token may not comment in {forge.project}; it needs `pull-requests: write` at"
                " GitHub, scope `api` and the role Reporter at GitLab; or the conversation is"
                " locked"
            )
        case 404 | 410:
            return (
                f"{forge.host} has no {forge.project}, or no request {request} in it, or the token"
                " may not see it; check --project, --request and the token"
            )
        case 400 | 422:
            return f"{forge.host} does not take the text"
    return explain(answer, forge.host)
