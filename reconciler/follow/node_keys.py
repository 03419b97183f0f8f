"""The keys and the mode that the node itself is given for signed commits, by its settings.

The files are read again before each new commit, so that a key can be added or taken away without
a restart. A file that is named must be there and hold a key: one that was emptied by accident is
an error, never a reason to go by the fleet's keys or by none.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from reconciler.config_repo.signers import parse_signer
from reconciler.errors import SettingsError
from reconciler.policy import SignatureMode
from reconciler.settings import Settings

_MAX_FILE_BYTES = 4 * 1024 * 1024
_GPG_KEY = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----.*?-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """What the node's settings say; `mode` None leaves the mode to fleet.yaml."""

    mode: SignatureMode | None = None
    ssh: tuple[str, ...] = ()
    gpg: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether fleet.yaml has no say in what must be signed, or by whom."""
        return self.mode is not None and (
            self.mode is SignatureMode.OFF or bool(self.ssh or self.gpg)
        )


def read_node_keys(settings: Settings) -> NodeKeys:
    """Return the node's own mode and keys.

    Raises SettingsError when a file with keys cannot be read, or holds anything else.
    """
    mode = None
    if settings.signature_mode != "fleet":
        mode = SignatureMode(settings.signature_mode)
    if mode is SignatureMode.OFF:
        return NodeKeys(mode)
    ssh, gpg = settings.allowed_signers_file, settings.gpg_keys_file
    return NodeKeys(mode, _read_ssh(ssh) if ssh else (), _read_gpg(gpg) if gpg else ())


def _read_ssh(path: Path) -> tuple[str, ...]:
    lines = []
    for number, line in enumerate(_read("allowed_signers_file", path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if parse_signer(text) is None:
            raise SettingsError(
                f"allowed_signers_file: line {number} of {path} is not an allowed signer; write"
                " lines such as `alice@example.com ssh-ed25519 AAAA...` (ssh-keygen(1), ALLOWED"
                " SIGNERS)"
            )
        lines.append(text)
    if not lines:
        raise SettingsError(
            f"allowed_signers_file: {path} holds no key; add one, or do not name it"
        )
    return tuple(lines)


def _read_gpg(path: Path) -> tuple[str, ...]:
    keys = tuple(_GPG_KEY.findall(_read("gpg_keys_file", path)))
    if not keys:
        raise SettingsError(
            f"gpg_keys_file: {path} holds no public key; write into it what"
            " `gpg --armor --export KEY` prints"
        )
    return keys


def _read(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise SettingsError(f"{name}: {path} is larger than such a file can be (4 MiB)")
        return data.decode()
    except OSError as error:
        raise SettingsError(f"{name}: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{name}: {path} is not text") from None
