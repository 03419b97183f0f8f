"""The certificate that a server shows, renewed without a restart.

Whoever renews certificates replaces two files, one after the other. So each time that they are
others than before they are tried in a new context, and what does not fit together leaves the one
before in use: it is looked at again as soon as the second file is there, too.
"""

import logging
import ssl
from pathlib import Path
from typing import TypeAlias

from reconciler.errors import SettingsError

_log = logging.getLogger(__name__)

_Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Certificate:
    """A certificate chain and its private key, by the files that hold them."""

    def __init__(self, cert_file: Path, key_file: Path | None = None) -> None:
        """Without `key_file` the key is in `cert_file`, too.

        Raises SettingsError where the files cannot be used.
        """
        self._cert_file = cert_file
        self._key_file = key_file or cert_file
        self._stamp = self._find_stamp()
        try:
            self._context = self._load()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{self._describe(error)}; give a PEM certificate chain and its unencrypted key"
                " (RECONCILER_TLS_CERT_FILE, RECONCILER_TLS_KEY_FILE)"
            ) from None

    def read_context(self) -> ssl.SSLContext:
        """Return what to greet the next client with, as the files are now."""
        stamp = self._find_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._load()
                _log.info("the certificate in %s is in use from now on", self._cert_file)
            except (OSError, ValueError) as error:
                _log.warning("%s; the one before stays in use", self._describe(error))
        return self._context

    def _find_stamp(self) -> _Stamp:
        return tuple(map(_stamp, (self._cert_file, self._key_file)))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert_file, self._key_file, password=_refuse_encrypted)
        return context

    def _describe(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLError):
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            why = "it is for another key" if mismatch else "it is damaged or not PEM"
        else:
            why = getattr(error, "strerror", None) or str(error)
        return f"the certificate in {self._cert_file} with the key in {self._key_file}: {why}"


def open_certificate(cert_file: Path | None, key_file: Path | None) -> Certificate | None:
    """Return the certificate that the settings name, None where they name none.

    Raises SettingsError.
    """
    if cert_file is not None:
        return Certificate(cert_file, key_file)
    if key_file is not None:
        raise SettingsError(
            f"there is a TLS key ({key_file}) but no certificate to it; set"
            " RECONCILER_TLS_CERT_FILE too, or neither"
        )
    return None


def _refuse_encrypted() -> bytes:
    """Stand where OpenSSL would else ask the terminal for the key's password."""
    raise ValueError("the key is encrypted")


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
