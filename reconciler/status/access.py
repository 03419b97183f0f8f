"""What a node is asked with: the read token, and the certificates that are believed.

Both are read from their files, the token at each question and the certificates when their file is
another one, so that they can be rotated without a restart. The token goes to the addresses that git
or a person names, and redirects are not followed, so to nobody else.
"""

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from reconciler.errors import ReconcilerError
from reconciler.settings import Settings
from reconciler.status.secret import NO_SECRET, read_tokens


class AccessError(ReconcilerError):
    """A file with what nodes are asked with cannot be used."""

    reason = "NoAccess"


@dataclass(frozen=True, slots=True)
class Access:
    """Where to find what nodes are asked with."""

    read_token_file: Path | None = None
    """None: nodes are asked without a token."""
    ca_file: Path | None = None
    """None: the system's certificates are believed."""

    @classmethod
    def of(cls, settings: Settings) -> "Access":
        """Return what an agent asks other nodes with."""
        return cls(settings.read_token_file, settings.tls_ca_file)

    def headers(self) -> dict[str, str]:
        """Return the headers that show the token; raises AccessError."""
        if self.read_token_file is None:
            return {}
        tokens = read_tokens(self.read_token_file)
        if not tokens:
            raise AccessError(f"the read token file {self.read_token_file} is {NO_SECRET}")
        token = tokens[0].decode("latin-1")
        if not token.isascii() or not token.isprintable():
            # http.client would quote the whole header in its error.
            raise AccessError(
                f"the token in {self.read_token_file} has characters in it that no token has"
            )
        return {"authorization": f"Bearer {token}"}

    def tls(self) -> ssl.SSLContext:
        """Return what certificates are checked by; raises AccessError."""
        if self.ca_file is None:
            return _make_context(None, None)
        try:
            stat = self.ca_file.stat()
            return _make_context(self.ca_file, (stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError as error:  # ssl's errors are such, too
            raise AccessError(
                f"the certificates in {self.ca_file} cannot be used"
                f" ({error.strerror or 'it holds none'}); it must be a file of PEM certificates"
            ) from None


OPEN_ACCESS = Access()
"""To ask nodes that let everybody read, and show certificates that the system knows."""


@lru_cache(maxsize=8)
def _make_context(ca_file: Path | None, _stamp: tuple[int, int, int] | None) -> ssl.SSLContext:
    """Return a context, the same for the same file: to read the system's takes longer than to ask.

    Raises OSError.
    """
    return ssl.create_default_context(cafile=ca_file)
