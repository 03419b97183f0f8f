"""A git of our own: nothing of the host's configuration, hooks, helpers or environment leaks in.

Every git command runs with an environment built from scratch and one configuration file, written
here. The remote's URL stands in that file without credentials; a token reaches git through a
credential helper that reads its file when the server asks, so it is never in an argument, a URL,
a message or on our disk.
"""

import base64
import os
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from reconciler.config_repo.git_errors import CREDENTIALS_UNREADABLE, git_error
from reconciler.errors import SettingsError
from reconciler.files import write_atomically
from reconciler.settings import Settings

REMOTE = "config"
_SILENT_SECONDS = 20
"""After which a connection on which nothing comes is given up, well before the deadline."""
_PROTOCOLS = ("file", "git", "http", "https", "ssh")
_INHERITED = ("PATH", "TMPDIR", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "GIT_SSL_CAINFO")
"""The certificates of a company's own authority and the way to git itself; nothing else."""
_BAD_BRANCH = re.compile(
    r"^[-/]|[\x00-\x20~^:?*\[\\\x7f]|\.\.|@\{|//|/\.|^\.|\.lock(/|$)|[/.]$|^@$"
)
_MAX_TOKEN_CHARACTERS = 64 * 1024
# Runs in sh. The token is in a variable of that shell and goes out through its built-in printf.
_HELPER = (
    '!f() { test "$1" = get || return 0; token="$RECONCILER_GIT_PASSWORD";'
    ' if test -n "$RECONCILER_GIT_TOKEN_FILE"; then'
    ' token=; IFS="$(printf " \\t\\r")" read -r token < "$RECONCILER_GIT_TOKEN_FILE"; fi;'
    ' test -n "$token" || return 0;'
    ' printf "username=%s\\npassword=%s\\n" "$RECONCILER_GIT_USERNAME" "$token"; }; f'
)


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """What the mirror needs to know; one field for each setting of the agent that is about git."""

    url: str
    branch: str
    state_dir: Path
    folder: str = ""
    """Subfolder of the repository that holds the config, without slashes around it."""
    deadline_seconds: float = 60.0
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    token_file: Path | None = None
    username: str = "x-access-token"
    proxy: str = ""
    user_project: str = ""

    @classmethod
    def of(cls, settings: Settings) -> "MirrorSettings":
        """Return the part of the agent's settings that the mirror needs."""
        return cls(
            url=settings.repo,
            branch=settings.branch,
            state_dir=settings.state_dir,
            folder=settings.path.strip("/"),
            deadline_seconds=settings.git_deadline,
            ssh_key=settings.git_ssh_key,
            known_hosts=settings.git_known_hosts,
            token_file=settings.git_token_file,
            username=settings.git_username,
            proxy=settings.git_proxy,
            user_project=settings.user_project,
        )


@dataclass(frozen=True, slots=True)
class Remote:
    """The remote's URL without credentials, and those that stood in it."""

    url: str
    username: str = ""
    password: str = ""


def split_url(text: str) -> Remote:
    """Take the credentials out of an http URL, and make a local path absolute.

    Raises SettingsError for a URL that git would not take or that names a way around git.
    """
    if not text or text.startswith("-") or any(ord(character) < 0x20 for character in text):
        raise SettingsError("repo is not a git URL; give one such as https://host/fleet.git")
    scheme, has_scheme, _ = text.partition("://")
    if not has_scheme:
        if "::" in text:
            raise SettingsError("repo names a remote helper; only https, ssh and file are used")
        is_scp_like = ":" in text.split("/", 1)[0]
        return Remote(text if is_scp_like else str(Path(text).expanduser().absolute()))
    if is_bundle(text):
        if not re.fullmatch(r"gs://[^/]+/.*[^/]", text):
            raise SettingsError(
                "repo names a bucket and no object in it; give one such as"
                " gs://acme-config/fleet.bundle"
            )
        return Remote(text)
    if scheme.lower() not in _PROTOCOLS:
        raise SettingsError(
            f"repo begins with {scheme}://; git takes https, ssh and file URLs, and a bundle in a"
            " bucket begins with gs://"
        )
    if scheme.lower() not in ("http", "https"):
        return Remote(text)
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise SettingsError(f"repo is not a URL ({error})") from None
    userinfo, _, host = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    if not host:
        raise SettingsError("repo names no host; give a URL such as https://host/fleet.git")
    clean = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    return Remote(clean, unquote(username), unquote(password))


def is_bundle(url: str) -> bool:
    """Whether the repo is a bundle in a bucket."""
    return url.startswith("gs://")


def check_branch(branch: str) -> None:
    """Raise SettingsError for what cannot be a branch's name (git-check-ref-format(1))."""
    # Quoted, it becomes one file name in the mirror.
    if not branch or len(quote(branch, safe="")) > 200 or _BAD_BRANCH.search(branch):
        raise SettingsError(f"branch {branch!r} cannot be a branch's name; give one such as main")


class PrivateGit:
    """The environment that every git command of the agent runs in."""

    def __init__(self, settings: MirrorSettings) -> None:
        check_branch(settings.branch)
        self.remote = split_url(settings.url)
        self.bundle_file = settings.state_dir.absolute() / "fleet.bundle"
        """What git fetches from where the repo is a bundle in a bucket."""
        self.home = settings.state_dir.absolute() / "git"
        self.signers_file = self.home / "allowed_signers"
        """The SSH keys that git accepts on commits."""
        self.gpg_home = self.home / "gnupg"
        """The GPG keys that git accepts on commits."""
        self._settings = settings

    def prepare(self) -> None:
        """Write the private configuration, if it is not there as it should be."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.home / ".gitconfig"
        content = self._configuration().encode()
        # Readable by the agent alone: a proxy's URL may carry its password.
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content, mode=0o600)

    def environment(self, git_dir: Path | None = None) -> dict[str, str]:
        """Return the whole environment of one git command, on `git_dir` where one is given."""
        settings, remote = self._settings, self.remote
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home),
            "GNUPGHOME": str(self.gpg_home),
            "LC_ALL": "C",
            "GIT_CONFIG_GLOBAL": str(self.home / ".gitconfig"),
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": "0",
            "GIT_CONFIG_PARAMETERS": "",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_CEILING_DIRECTORIES": str(self.home.parent),
            "GIT_SSH_COMMAND": shlex.join(self._ssh_command()),
            "RECONCILER_GIT_USERNAME": remote.username or settings.username,
            "RECONCILER_GIT_PASSWORD": remote.password,
            "RECONCILER_GIT_TOKEN_FILE": str(settings.token_file.absolute())
            if settings.token_file
            else "",
        }
        if git_dir is not None:
            # Named one by one, because GitPython adds these to what the agent itself was given.
            environment |= {
                "GIT_DIR": str(git_dir),
                "GIT_COMMON_DIR": str(git_dir),
                "GIT_OBJECT_DIRECTORY": str(git_dir / "objects"),
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
            }
        return environment

    def check_credentials(self) -> None:
        """Raise GitError when a file with a key or token cannot be read, before git asks for it."""
        settings = self._settings
        files = {
            "git_token_file": settings.token_file,
            "git_ssh_key": settings.ssh_key,
            "git_known_hosts": settings.known_hosts,
        }
        for name, path in files.items():
            if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
                raise git_error(
                    CREDENTIALS_UNREADABLE,
                    self.remote.url,
                    f"{name} names {path}, which is not a file that the agent's user can read",
                )

    def hide_secrets(self, text: str) -> str:
        """Return the text without the token and the password, should a server echo them.

        Also as they go over the wire: percent-encoded, or with the user's name in base64.
        """
        found = [self.remote.password]
        if self._settings.token_file is not None:
            with suppress(OSError), self._settings.token_file.open(errors="replace") as file:
                found.append(file.readline(_MAX_TOKEN_CHARACTERS).strip())
        user = self.remote.username or self._settings.username
        for secret in filter(None, found):
            header = base64.b64encode(f"{user}:{secret}".encode()).decode()
            for form in (header, quote(secret, safe=""), secret):
                text = text.replace(form, "***")
        return text

    def _configuration(self) -> str:
        url = str(self.bundle_file) if is_bundle(self.remote.url) else self.remote.url
        sections: dict[str, list[tuple[str, str]]] = {
            "core": [
                ("hooksPath", os.devnull),
                ("fsync", "committed"),
                ("askPass", ""),
                ("fsmonitor", "false"),
            ],
            "gc": [("auto", "0")],
            "maintenance": [("auto", "false")],
            "fetch": [("recurseSubmodules", "false"), ("writeCommitGraph", "false")],
            "submodule": [("recurse", "false")],
            f"gpg {_quote_value('ssh')}": [("allowedSignersFile", str(self.signers_file))],
            # An X.509 signature is checked against the host's certificates, which nobody named.
            f"gpg {_quote_value('x509')}": [("program", os.devnull)],
            "protocol": [("version", "2"), ("allow", "never")],
            "safe": [("directory", name) for name in self._own_folders()],
            f"remote {_quote_value(REMOTE)}": [("url", url), ("tagOpt", "--no-tags")],
        }
        for protocol in _PROTOCOLS:
            sections[f"protocol {_quote_value(protocol)}"] = [("allow", "always")]
        # A server that came back does not know of a fetch that hangs since before. One that works
        # says something every 5 s, however long it counts (uploadpack.keepAlive).
        sections["http"] = [("lowSpeedLimit", "1"), ("lowSpeedTime", str(_SILENT_SECONDS))]
        if self._settings.proxy:
            sections["http"].append(("proxy", self._settings.proxy))
        if url.lower().startswith(("http://", "https://")):
            # Only for this host: a redirect elsewhere must not carry the token along.
            host = urlunsplit((*urlsplit(url)[:2], "", "", ""))
            sections[f"credential {_quote_value(host)}"] = [("helper", _HELPER)]
        lines = []
        for section, entries in sections.items():
            lines.append(f"[{section}]")
            lines += [f"\t{name} = {_quote_value(value)}" for name, value in entries]
        return "\n".join(lines) + "\n"

    def _own_folders(self) -> list[str]:
        """Return the folders that git may trust although another user owns them."""
        folders = [str(self._settings.state_dir.absolute() / "mirror")]
        folders.append(folders[0] + ".new")
        local = self.remote.url.removeprefix("file://")
        if local.startswith("/"):
            folders += [local.rstrip("/"), local.rstrip("/") + "/.git"]
        return folders

    def _ssh_command(self) -> list[str]:
        settings = self._settings
        known_hosts = settings.known_hosts.absolute() if settings.known_hosts else os.devnull
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": _quote_for_ssh(known_hosts),
            "GlobalKnownHostsFile": os.devnull,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "ConnectTimeout": str(max(1, int(settings.deadline_seconds))),
            "ServerAliveInterval": str(_SILENT_SECONDS // 2),
            "ServerAliveCountMax": "2",
            "ForwardAgent": "no",
            "IdentityFile": _quote_for_ssh(settings.ssh_key.absolute())
            if settings.ssh_key
            else "none",
        }
        command = ["ssh", "-F", os.devnull]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        return command


def _quote_value(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _quote_for_ssh(path: Path | str) -> str:
    return '"' + str(path).replace("%", "%%") + '"'
