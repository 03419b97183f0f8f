"""models.config: TensorFlow Serving's config in its text form, and the same thing as a message.

The file holds what a restarted server comes up with, so it is replaced by rename: a server reads
it through a memory map, and a file cut short under it would kill the process.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_encoding, text_format

from reconciler.files import make_folder, write_atomically
from reconciler.model import Ask, ServerConfig
from reconciler.planning.trial_names import model_of
from reconciler.serving.protocol.control_pb2 import ModelServerConfig

PLATFORM = "tensorflow"
_MAX_CONFIG_BYTES = 16 * 1024 * 1024
_HEADER = (
    "# Written by reconciler; changes by hand are overwritten. Change the config repo instead.\n"
)
_ENTRY = re.compile(
    r'  config \{\n    name: "([^"\\]*)"\n    base_path: .*\n    model_platform: .*\n'
    r"    model_version_policy \{\n      specific \{\n"
    r"((?:        versions: \d+\n)*)      \}\n    \}\n"
    r"((?:    version_labels \{\n(?:      .*\n)*    \}\n)*)  \}\n"
)
_NUMBER = re.compile(r"\d+")
_LABEL = re.compile(r'      key: "([^"\\]*)"\n(?:      value: (\d+)\n)?')


def to_message(config: ServerConfig, base: str) -> ModelServerConfig:
    """Return the message for `config`, with every model's folder under `base`, also for trials.

    The list is always present, also when it is empty: a server that is started from a config
    without one never takes a reload properly.
    """
    message = ModelServerConfig()
    message.model_config_list.SetInParent()
    for model, ask in sorted(config.items()):
        entry = message.model_config_list.config.add()
        entry.name = model
        entry.base_path = f"{base}/{model_of(model)}"
        entry.model_platform = PLATFORM
        entry.model_version_policy.specific.versions.extend(sorted(ask.versions))
        if not ask.versions:
            entry.model_version_policy.specific.SetInParent()
        for label, version in sorted(ask.labels.items()):
            entry.version_labels[label] = version
    return message


def render(config: ServerConfig, base: str) -> str:
    """Return the text of models.config.

    Word for word what protobuf's text_format makes of `to_message`, which takes a second and more
    for thousands of models.
    """
    lines = [_HEADER, "model_config_list {\n"]
    for model, ask in sorted(config.items()):
        path = f"{base}/{model_of(model)}"
        lines.append(
            f"  config {{\n    name: {_quote(model)}\n    base_path: {_quote(path)}\n"
            f'    model_platform: "{PLATFORM}"\n    model_version_policy {{\n      specific {{\n'
        )
        lines += [f"        versions: {version}\n" for version in sorted(ask.versions)]
        lines.append("      }\n    }\n")
        for label, version in sorted(ask.labels.items()):
            # Zero is what a number is that is not written.
            value = f"      value: {version}\n" if version else ""
            lines.append(f"    version_labels {{\n      key: {_quote(label)}\n{value}    }}\n")
        lines.append("  }\n")
    lines.append("}\n")
    return "".join(lines)


def _quote(text: str) -> str:
    # It is typed for bytes alone, of which it would escape every letter that is not ASCII.
    return f'"{text_encoding.CEscape(text, as_utf8=True)}"'  # type: ignore[arg-type]


def parse(text: str) -> ServerConfig | None:
    """Return what a models.config says, written by whomever; None when it cannot be parsed.

    A model whose policy names no versions (`latest`, `all`) comes back with an empty set.
    """
    message = ModelServerConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError:
        return None
    config: dict[str, Ask] = {}
    for entry in message.model_config_list.config:
        versions = frozenset(entry.model_version_policy.specific.versions)
        config[entry.name] = Ask(versions, dict(entry.version_labels))
    return config


def write_config(path: Path, config: Mapping[str, Ask], base: str) -> None:
    """Replace the file at `path`, which the model server's user can read as well."""
    make_folder(path.parent, 0o755)
    write_atomically(path, render(config, base).encode(), mode=0o644)


def read_text(path: Path) -> str | None:
    """Return the text of the file at `path`; None where there is none or it is no such file."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES + 1)
        return None if len(content) > _MAX_CONFIG_BYTES else content.decode()
    except (OSError, UnicodeDecodeError):
        return None


def read_own(path: Path, base: str) -> ServerConfig | None:
    """Return the config in the file at `path` if it is word for word what we would write."""
    text = read_text(path)
    if text is None:
        return None
    for reader in (_parse_own, parse):
        config = reader(text)
        if config is not None and render(config, base) == text:
            return config
    return None


def _parse_own(text: str) -> ServerConfig:
    """Return what `render` was given for `text`, or anything else where it was not `render`'s.

    A twentieth of the time that protobuf takes, which is felt where an agent of 1,000 models
    starts. Names that have to be escaped are left to protobuf.
    """
    config = {}
    for entry in _ENTRY.finditer(text):
        name, versions, labels = entry.groups()
        config[name] = Ask(
            frozenset(int(version) for version in _NUMBER.findall(versions)),
            {label: int(version or 0) for label, version in _LABEL.findall(labels)},
        )
    return config


class OwnFile:
    """The server's config file, which is parsed again only when it is another."""

    def __init__(self, path: Path, base: str) -> None:
        self.path = path
        self._base = base
        self._mark: tuple[int, ...] | None = None
        self._config: ServerConfig | None = None
        self._written: tuple[str | None, ServerConfig] = None, {}

    def read(self) -> ServerConfig | None:
        """Return what `read_own` does, by the same value as long as nobody writes the file."""
        try:
            status = self.path.stat()
        except OSError:
            self._mark = None
            return None
        mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if mark != self._mark:
            self._mark, self._config = mark, self._read()
        return self._config

    def write(self, config: ServerConfig) -> None:
        """Replace the file; what was written is known again without being parsed."""
        write_config(self.path, config, self._base)
        self._written = render(config, self._base), config

    def _read(self) -> ServerConfig | None:
        text, config = self._written
        if text is not None and read_text(self.path) == text:
            return config
        return read_own(self.path, self._base)
