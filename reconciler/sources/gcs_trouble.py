"""Says what went wrong with Cloud Storage, in the words of whoever can mend it.

The libraries report one and the same trouble in a dozen classes and texts, some of which quote
what was sent. So nothing of theirs is passed on but one shortened line, without URLs and without
anything that is long enough to be a token; what can be told apart gets a sentence of its own: a
wrong key, a wrong clock, a missing grant, a project that has to pay, and a proxy that answers in
Cloud Storage's place.
"""

import re
from http import HTTPStatus
from pathlib import Path

import requests
from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, Unauthorized
from google.auth.exceptions import GoogleAuthError, TransportError

from reconciler.errors import SourceError
from reconciler.sources.source import TransientReadError

_KEPT = "what is installed stays"
_MAX_QUOTED = 200
_URL = re.compile(r" with url: \S+| ?\bhttps?://\S+")
_OPAQUE = re.compile(r"[\w.+/=~-]{40,}")
"""What may be a token, a signature or a key. No word of a sentence is that long."""
_PAGE = (
    "was answered by something other than Cloud Storage, as a proxy does that shows a page of its"
    " own; look at HTTPS_PROXY and NO_PROXY of this agent, and at what stands between"
)


class PageError(TransportError):
    """A web page came where a token should have come."""


class RefusedReadError(Exception):
    """An answer to a read that is not the range that was asked for; `text` is what it says."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}" if text else f"HTTP {status}")
        self.status = status
        # Cloud Storage calls its own one-line refusals text/html, so the type says nothing.
        self.is_page = status < HTTPStatus.BAD_REQUEST or "<html" in text.lower()


def explain_broken_credentials(
    key_file: Path | None, variable: str, error: Exception
) -> SourceError:
    """Return the error about credentials that are there and cannot be used."""
    if key_file is None:
        text = f"the credentials of this machine cannot be used: {quote(error)}"
    elif not key_file.exists():
        text = f"{variable} names {key_file}, which does not exist"
    else:
        text = f"{variable} names {key_file}, which cannot be used: {quote(error)}"
    return SourceError(
        f"{text}; put the JSON key of a service account there, or the configuration of a workload"
        f" identity; it is read again when it changes, and {_KEPT}",
        "Unauthenticated",
    )


def explain_listing(source: str, bucket: str, error: Exception, *, anonymous: bool) -> SourceError:
    """Return the error about a listing that failed."""
    if isinstance(error, NotFound):
        return SourceError(f"bucket {bucket} of {source} does not exist", "BucketNotFound")
    if _is_page(error):
        return SourceError(f"listing {source} {_PAGE}; {_KEPT}", "ListingFailed")
    if isinstance(error, Unauthorized) or (anonymous and isinstance(error, GoogleAuthError)):
        # Without credentials the library does not report the 401, but that it cannot renew them.
        found = "there are none" if anonymous else "this node's were refused"
        return SourceError(
            f"listing {source} needs credentials and {found}; give this node a service account"
            " that may read it",
            "Unauthenticated",
        )
    if isinstance(error, GoogleAuthError):
        return _explain_credentials(f"listing {source}", error, "ListingFailed")
    unpaid = _explain_payment(f"listing {source}", bucket, str(error))
    if unpaid is not None:
        return unpaid
    if isinstance(error, Forbidden):
        return _forbid(f"listing {source}", bucket)
    code = f" (HTTP {error.code})" if isinstance(error, GoogleAPICallError) else ""
    return SourceError(f"listing {source} failed{code}: {quote(error)}; {_KEPT}", "ListingFailed")


def explain_read(shown: str, bucket: str, error: Exception, *, anonymous: bool) -> SourceError:
    """Return the error about a read that failed; TransientReadError where a retry may help."""
    if isinstance(error, GoogleAuthError):
        return _explain_credentials(f"reading {shown}", error, TransientReadError.reason)
    if isinstance(error, RefusedReadError):
        if error.is_page:
            return TransientReadError(f"reading {shown} {_PAGE}")
        refused = _explain_refusal(shown, bucket, error, anonymous=anonymous)
        if refused is not None:
            return refused
    if isinstance(error, TimeoutError):
        return TransientReadError(f"reading {shown} failed: no answer came in time")
    return TransientReadError(f"reading {shown} failed: {quote(error)}")


def _explain_refusal(
    shown: str, bucket: str, error: RefusedReadError, *, anonymous: bool
) -> SourceError | None:
    if error.status == HTTPStatus.UNAUTHORIZED:
        if anonymous:
            return SourceError(
                f"reading {shown} needs credentials and there are none; give this node a service"
                " account that may read it",
                "Unauthenticated",
            )
        return TransientReadError(
            f"reading {shown} failed: Cloud Storage refused this node's token, which is replaced"
        )
    unpaid = _explain_payment(f"reading {shown}", bucket, str(error))
    if unpaid is not None or error.status != HTTPStatus.FORBIDDEN:
        return unpaid
    return _forbid(f"reading {shown}", bucket)


def quote(error: Exception) -> str:
    """Return one short line of an error's text, without URLs and possible secrets.

    The request's URL says nothing to a person, and makes one trouble look like as many as there
    were requests; what follows the first line are Rust's or HTML's insides.
    """
    first = error.args[0] if error.args and isinstance(error.args[0], str) else error
    line = (str(first).strip().splitlines() or [type(error).__name__])[0]
    return _OPAQUE.sub("[...]", _URL.sub("", line))[:_MAX_QUOTED].rstrip(".")


def _explain_credentials(doing: str, error: GoogleAuthError, passing_reason: str) -> SourceError:
    """Return the error about a token that was not to be had; it may pass where nobody refused."""
    text = str(error)
    is_passing = isinstance(error, TransportError) or error.retryable
    if isinstance(error, PageError):
        text = f"{doing} needs a token, and the question for one {_PAGE}"
        is_passing = True
    elif is_passing:
        text = f"{doing} needs a token, and where tokens are given nobody answers: {quote(error)}"
    elif "reasonable timeframe" in text:
        text = (
            f"{doing} needs a token, and it is refused because this node's clock is wrong; set the"
            " clock, by NTP at best"
        )
    elif "JWT Signature" in text or "account not found" in text:
        text = (
            f"{doing} needs a token, and this node's key is refused ({quote(error)}): it was"
            " deleted, has expired or is another account's; give the node a new one"
        )
    else:
        text = (
            f"{doing} needs a token, and this node's credentials are refused: {quote(error)}; give"
            " this node a service account that may read it"
        )
    if not is_passing:
        return SourceError(f"{text}; {_KEPT}", "Unauthenticated")
    if passing_reason == TransientReadError.reason:
        return TransientReadError(text)
    return SourceError(f"{text}; {_KEPT}", passing_reason)


def _explain_payment(doing: str, bucket: str, text: str) -> SourceError | None:
    if "requester pays" in text or "UserProjectMissing" in text:
        return SourceError(
            f"{doing} is refused because bucket {bucket} bills whoever reads it; set user_project"
            " to the project that pays",
            "Forbidden",
        )
    if "serviceusage.services.use" in text or "UserProjectAccessDenied" in text:
        return SourceError(
            f"{doing} is refused because this node's service account may not bill the project in"
            " user_project; grant it roles/serviceusage.serviceUsageConsumer there",
            "Forbidden",
        )
    return None


def _forbid(doing: str, bucket: str) -> SourceError:
    return SourceError(
        f"{doing} is forbidden; grant this node's service account roles/storage.objectViewer on"
        f" bucket {bucket}",
        "Forbidden",
    )


def _is_page(error: Exception) -> bool:
    """Whether an answer is a web page. Google's own front ends send one with a 404 or 5xx."""
    if isinstance(error, requests.JSONDecodeError | requests.TooManyRedirects):
        return True
    response = getattr(error, "response", None)
    if not isinstance(response, requests.Response) or response.status_code >= 500:
        return False
    return response.headers.get("Content-Type", "").startswith("text/html")
