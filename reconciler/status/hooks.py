"""`POST /hooks/git`: a forge says that a branch moved, and the agent looks at git at once.

All that a hook can do is to wake the poll, so all that has to be guarded is the node's own work:
how many bytes are held, how long a sender may take, how often git is asked. Whoever cannot be
genuine is turned away before the body is read; nothing is parsed before the signature is right.

Two limits, kept apart so that a flood of forged hooks cannot use up what the forge is allowed:
refusals over theirs are answered 429 and not logged; a genuine push over its own is answered 429
too but not lost, as no forge sends it again: git is asked as soon as the limit allows.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from reconciler.status.limits import TokenBucket
from reconciler.status.pushes import (
    FORGES,
    Forge,
    Result,
    UnreadablePushError,
    Verdict,
    find_forge,
    is_genuine,
    judge,
)
from reconciler.status.secret import NO_SECRET, read_secret

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_HELD_BYTES = 32 * 1024 * 1024
"""Of all bodies under way together, as they are held before it is known who sends them."""
PUSHES_PER_MINUTE = 60
BURST = 20
_CLOSE = {"connection": "close"}
"""Of an answer that leaves a body unread: what follows on that connection is no request."""


@dataclass(frozen=True, slots=True)
class HookSettings:
    """What this node takes hooks by."""

    secret_file: Path | None = None
    """None turns them off."""
    branch: str = "main"
    body_seconds: float = 10.0
    """How long a sender may take for the body."""


class HookTaker:
    """Takes what forges send and calls `wake_git`, which must only set a flag."""

    def __init__(
        self,
        wake_git: Callable[[], None],
        settings: HookSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wake_git = wake_git
        self._settings = settings
        self._pushes = TokenBucket(PUSHES_PER_MINUTE, BURST, clock)
        self._refusals = TokenBucket(PUSHES_PER_MINUTE, BURST, clock)
        self._held_bytes = 0
        self._late_wake: asyncio.TimerHandle | None = None

    async def take(self, request: Request) -> Verdict:
        """Return what one request came to; raises HTTPException with a sentence."""
        secret = _read_own_secret(self._settings.secret_file)
        forge = find_forge(request.headers)
        if forge is None:
            known = ", ".join(forge.event_header for forge in FORGES)
            raise HTTPException(400, f"A forge's webhook has one of the headers {known}.", _CLOSE)
        event = request.headers[forge.event_header]
        given = request.headers.get(forge.secret_header, "")
        if not given:
            raise self._refuse(
                request,
                f"The header {forge.secret_header} is missing; give the hook in {forge.name} the"
                " secret of this node.",
            )
        _check_form(request)
        if forge.digest_prefix is None and not is_genuine(forge, given, secret, b""):
            raise self._refuse(request, _wrong_secret(forge))
        body = await self._read_body(request)
        if not is_genuine(forge, given, secret, body):
            raise self._refuse(request, _wrong_secret(forge))
        try:
            verdict = judge(forge, event, body, self._settings.branch)
        except UnreadablePushError as error:
            raise HTTPException(400, str(error)) from None
        if verdict.result is Result.FETCHING:
            self._wake()
        return verdict

    def _wake(self) -> None:
        wait_seconds = self._pushes.take()
        if not wait_seconds:
            self._wake_git()
            return
        if self._late_wake is None:
            loop = asyncio.get_running_loop()
            self._late_wake = loop.call_later(wait_seconds, self._wake_late)
        raise HTTPException(
            429,
            f"More than {PUSHES_PER_MINUTE} pushes a minute; git is asked in {wait_seconds:.1f} s"
            " for this and all others meanwhile, so it need not be sent again.",
            _retry_after(wait_seconds),
        )

    def _wake_late(self) -> None:
        self._late_wake = None
        self._pushes.take()
        self._wake_git()

    def _refuse(self, request: Request, sentence: str) -> HTTPException:
        wait_seconds = self._refusals.take()
        if wait_seconds:
            return HTTPException(
                429, "Too many hooks were refused.", _CLOSE | _retry_after(wait_seconds)
            )
        sender = request.client.host if request.client else "an unknown sender"
        _log.warning("a webhook from %s was refused: %s", sender, sentence)
        return HTTPException(401, sentence, _CLOSE)

    async def _read_body(self, request: Request) -> bytes:
        """Return the body; however it is sent, no more than the bound is held of it."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    self._held_bytes += len(chunk)
                    if len(body) > MAX_BODY_BYTES:
                        raise _too_large()
                    if self._held_bytes > MAX_HELD_BYTES:
                        raise HTTPException(
                            503,
                            "Too many large hooks at once; this one was not read.",
                            _CLOSE | _retry_after(self._settings.body_seconds),
                        )
        except TimeoutError:
            raise HTTPException(
                408, f"The body was not there within {self._settings.body_seconds:g} s.", _CLOSE
            ) from None
        except ClientDisconnect:
            raise HTTPException(400, "The body ended before its end.", _CLOSE) from None
        finally:
            self._held_bytes -= len(body)
        return bytes(body)


def _read_own_secret(file: Path | None) -> bytes:
    if file is None:
        raise HTTPException(
            403,
            "POST /hooks/git is off on this node: no secret file is set"
            " (--webhook-secret-file or RECONCILER_WEBHOOK_SECRET_FILE).",
            _CLOSE,
        )
    secret = read_secret(file)
    if not secret:
        raise HTTPException(
            403,
            f"The webhook secret file of this node is {NO_SECRET}; no hook is taken.",
            _CLOSE,
        )
    return secret


def _check_form(request: Request) -> None:
    """Turn away what is too long by its own words, or in a form in which no push is read."""
    announced = request.headers.get("content-length", "0")
    if len(announced) > len(str(MAX_BODY_BYTES)) or int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise HTTPException(
            415, "Set the hook's content type to application/json; no other is read.", _CLOSE
        )


def _too_large() -> HTTPException:
    return HTTPException(
        413, f"A push of more than {MAX_BODY_BYTES // 1024**2} MiB is not read.", _CLOSE
    )


def _wrong_secret(forge: Forge) -> str:
    return f"The header {forge.secret_header} was not made with this node's webhook secret."


def _retry_after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(int(seconds) + 1)}
