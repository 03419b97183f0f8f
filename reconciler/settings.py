"""Every setting of a node: its name, its default and why that default.

One dataclass is the single source: the command line's flags, the RECONCILER_* environment
variables, the keys of the settings file and the README's table are all made from it. A flag wins
over the environment, the environment over the file, the file over the default.
"""

import math
import re
import socket
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from reconciler.errors import SettingsError

ENVIRONMENT_PREFIX = "RECONCILER_"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NAME = re.compile(r"[a-zA-Z][a-zA-Z_-]{0,39}")
_MAX_SETTINGS_BYTES = 1024 * 1024


def parse_duration(text: str) -> float:
    """Return the seconds that `15s`, `1m30s`, `250ms`, `2h` or a plain number of seconds say.

    Raises SettingsError for anything else.
    """
    text = str(text).strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return math.fsum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise SettingsError(f"{text!r} is not a duration; write one such as 15s, 1m30s or 250ms")
    return seconds


def _setting(help_text: str, default: Any = MISSING, *, kind: str = "text") -> Any:
    metadata = {"help": help_text, "kind": kind}
    if default is MISSING:
        return field(metadata=metadata)
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """What one agent is told from outside git."""

    repo: str = _setting(
        "git URL of the config repo: https, ssh, file or a path; or gs://bucket/name.bundle, where"
        " `reconciler bundle` puts it."
    )
    branch: str = _setting("Branch to follow.", "main")
    path: str = _setting("Subfolder of the repo that holds fleet.yaml, groups/, deployments/.", "")
    node: str = _setting("This node's name in groups/*.yaml.", socket.gethostname)
    models_dir: Path = _setting(
        "Models folder, shared with TensorFlow Serving; downloads are staged in it too, so that"
        " installing a version is one rename.",
        Path("/var/lib/reconciler/models"),
        kind="path",
    )
    state_dir: Path = _setting(
        "The agent's own folder: mirror of the repo, memory, history.",
        Path("/var/lib/reconciler/state"),
        kind="path",
    )
    config_file: Path | None = _setting(
        "The models.config that TensorFlow Serving starts from. Default: models.config in the"
        " models folder.",
        None,
        kind="path",
    )
    serving: str = _setting("host:port of TensorFlow Serving's gRPC.", "127.0.0.1:8500")
    serving_models_dir: str = _setting(
        "The models folder as TensorFlow Serving sees it, where that path differs.", ""
    )
    serving_mode: Literal["rpc", "file"] = _setting(
        "How the server learns of a change: `rpc` (HandleReloadConfigRequest) or `file`, for a"
        " server started with --model_config_file_poll_wait_seconds.",
        "rpc",
        kind="choice:rpc,file",
    )
    serving_poll: float = _setting(
        "The server's --file_system_poll_wait_seconds (in file mode the longer of that and its"
        " config file poll): how long a stale status must be allowed for.",
        1.0,
        kind="duration",
    )
    reload_deadline: float = _setting(
        "How long one reload may take before it is given up. Long, because a server goes on with"
        " a reload whose caller has left, and each further one costs it a thread.",
        3600.0,
        kind="duration",
    )
    listen: str = _setting("host:port of the status endpoint.", "127.0.0.1:8080")
    sync_token_file: Path | None = _setting(
        "File with the bearer token of POST /sync; without it POST /sync is refused.",
        None,
        kind="path",
    )
    webhook_secret_file: Path | None = _setting(
        "File with the secret of POST /hooks/git; without it pushes are not taken.",
        None,
        kind="path",
    )
    git_interval: float = _setting(
        "Time between two fetches, 10 % jitter; 0 stops polling.", 15.0, kind="duration"
    )
    git_deadline: float = _setting("How long one git command may take.", 60.0, kind="duration")
    git_ssh_key: Path | None = _setting("Private key for ssh URLs.", None, kind="path")
    git_known_hosts: Path | None = _setting(
        "Known hosts for ssh URLs; a host that is not in it is refused.", None, kind="path"
    )
    git_token_file: Path | None = _setting(
        "File with the token for https URLs, read again before every fetch.", None, kind="path"
    )
    git_username: str = _setting("User name that goes with the token.", "x-access-token")
    git_proxy: str = _setting("Proxy for http and https URLs.", "")
    signature_mode: Literal["fleet", "off", "head", "range"] = _setting(
        "Which commits must be signed: what the trusted fleet.yaml says (`fleet`), none, the"
        " newest, or every one since the last that was followed.",
        "fleet",
        kind="choice:fleet,off,head,range",
    )
    allowed_signers_file: Path | None = _setting(
        "SSH keys that may sign, as in ssh-keygen(1); with this or GPG keys given here, those in"
        " fleet.yaml do not count.",
        None,
        kind="path",
    )
    gpg_keys_file: Path | None = _setting(
        "GPG public keys that may sign, in ASCII armour.", None, kind="path"
    )
    docker_host: str = _setting(
        "Where groups that Docker Swarm knows the nodes of ask: a manager's socket, or"
        " tcp://host:port.",
        "unix:///var/run/docker.sock",
    )
    nomad_address: str = _setting(
        "Where groups that Nomad knows the nodes of ask: the URL of an agent.",
        "http://127.0.0.1:4646",
    )
    nomad_token_file: Path | None = _setting(
        "File with a Nomad token that has node:read, read again for each question.",
        None,
        kind="path",
    )
    bucket_interval: float = _setting(
        "Time between two listings of a source, with jitter.", 60.0, kind="duration"
    )
    pin_check_interval: float = _setting(
        "Time between two comparisons of an installed pin with its bucket.",
        3600.0,
        kind="duration",
    )
    settle: float = _setting(
        "How long a version's listing must have been unchanged before `latest` takes it.",
        10.0,
        kind="duration",
    )
    connections: int = _setting("Connections for downloads, over all models.", 16, kind="integer")
    tick: float = _setting("Time between two looks at a node at rest.", 2.0, kind="duration")
    read_token_file: Path | None = _setting(
        "File with the bearer token that every GET but /livez and /readyz must bring; this agent"
        " shows it to the other nodes that it asks. Without it what a node says is public.",
        None,
        kind="path",
    )
    tls_cert_file: Path | None = _setting(
        "Certificate chain of the status endpoint, PEM; read again when it changes.",
        None,
        kind="path",
    )
    tls_key_file: Path | None = _setting("Its private key, PEM.", None, kind="path")
    tls_ca_file: Path | None = _setting(
        "Certificates that other nodes' are signed by, PEM. Default: those of the system.",
        None,
        kind="path",
    )
    user_project: str = _setting(
        "Google Cloud project that pays for reads of requester-pays buckets.", ""
    )
    pubsub_subscription: str = _setting(
        "projects/P/subscriptions/S with the buckets' notifications, which wake the loop. It must"
        " be this node's alone.",
        "",
    )
    supervise: Literal["off", "restart", "follow"] = _setting(
        "What the agent may do to TensorFlow Serving's container by the Docker engine: nothing,"
        " restart it where only that helps, or also run it as the group's `serving` says.",
        "off",
        kind="choice:off,restart,follow",
    )
    supervise_label: str = _setting(
        "The label, as name or name=value, of the one container that may be touched.",
        "reconciler.serving",
    )
    log_format: Literal["text", "json"] = _setting(
        "Log lines for people or for machines.", "text", kind="choice:text,json"
    )

    @property
    def serving_config_file(self) -> Path:
        """The file that TensorFlow Serving starts from."""
        return self.config_file or self.models_dir / "models.config"

    @property
    def serving_base(self) -> str:
        """The models folder by the path that TensorFlow Serving knows, without trailing slash."""
        return (self.serving_models_dir or str(self.models_dir.absolute())).rstrip("/")


def setting_fields() -> tuple[Field[Any], ...]:
    """Return the settings in the order in which help and README list them."""
    return fields(Settings)


def environment_name(name: str) -> str:
    """Return the environment twin of a setting: `git_interval` -> `RECONCILER_GIT_INTERVAL`."""
    return ENVIRONMENT_PREFIX + name.upper()


def load_settings(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Merge flags, environment and the file named by `--config` or RECONCILER_CONFIG.

    `flags` maps setting names to text, None where a flag was not given. Raises SettingsError with
    every mistake in one message.
    """
    config = flags.get("config") or environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    from_file = _read_file(Path(str(config))) if config else {}
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for item in setting_fields():
        for origin, raw in (
            (f"--{item.name.replace('_', '-')}", flags.get(item.name)),
            (environment_name(item.name), environment.get(environment_name(item.name))),
            (f"{config}: {item.name}", from_file.get(item.name)),
        ):
            if raw is None:
                continue
            try:
                values[item.name] = _convert(str(raw), item.metadata["kind"])
            except SettingsError as error:
                mistakes.append(f"{origin}: {error}")
            break
    if not values.get("repo") and not mistakes:
        mistakes.append("no config repo is named; give --repo or set RECONCILER_REPO to a git URL")
    for name in ("serving", "listen"):
        if name in values and not _is_address(values[name]):
            mistakes.append(f"{name}: {values[name]!r} is not host:port")
    if mistakes:
        raise SettingsError("; ".join(mistakes))
    return Settings(**values)


def _convert(text: str, kind: str) -> object:
    if kind == "duration":
        return parse_duration(text)
    if kind == "path":
        return Path(text)
    if kind == "integer":
        if not text.isdecimal() or int(text) < 1:
            raise SettingsError(f"{text!r} is not a whole number above 0")
        return int(text)
    if kind.startswith("choice:"):
        choices = kind.removeprefix("choice:").split(",")
        if text not in choices:
            raise SettingsError(f"{text!r} is none of {', '.join(choices)}")
    return text


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and int(port) < 65536


def _read_file(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _MAX_SETTINGS_BYTES:
            raise SettingsError(f"{path} is larger than a settings file can be (1 MiB)")
        loaded = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        # What YAML's own words quote of the file may be the password in a proxy's URL.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise SettingsError(
            f"{path} is not YAML{where}; it must map setting names to values, and a value with"
            " `: `, ` #` or a quotation mark in it stands in quotes"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as a settings file: {error}") from None
    except (ValueError, RecursionError) as error:  # as of a date that is none, or of 1,000 brackets
        raise SettingsError(
            f"{path} holds what is no setting's value ({type(error).__name__}); it must map setting"
            " names to plain values"
        ) from None
    if loaded is None:
        return {}
    known = {item.name for item in setting_fields()}
    if not isinstance(loaded, dict) or not known.issuperset(loaded):
        unknown = sorted(set(map(str, loaded)) - known) if isinstance(loaded, dict) else []
        unknown = [name if _NAME.fullmatch(name) else "what is no name" for name in unknown]
        raise SettingsError(
            f"{path} must map setting names to values; unknown: {', '.join(unknown) or 'its shape'}"
        )
    return {str(key): value for key, value in loaded.items() if value is not None}
