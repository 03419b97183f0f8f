"""Runs the agent as it is in production, with bad luck that a test calls down on it while it runs.

Python tells an audit hook of every file that is opened to be written, renamed, removed or made, and
takes an error from it as if the system had raised it; writes and fsyncs pass through here too. So
every change of the disk is a point with a name, at which the agent can be killed or refused, and no
line of it is other than in production. One default is: a few models are looked at as thousands are,
some of them at a time. A file (CHAOS_CONTROL) says what goes wrong from now on:

    {"die_at": "os.rename models/M/.manifests/V.json"}   kill -9 right before it
    {"errno": 28, "share": 0.3, "within": "models"}      refuse that share of the changes
    {"clock_seconds": 86400}                             a wall clock that is wrong
    {}                                                   nothing

What is to be judged later goes into a journal (CHAOS_JOURNAL), one JSON object a line: each name
that was met first, and each version that is deleted, with what the server's config file and the
server itself said at that moment.
"""

import json
import os
import random
import re
import signal
import stat
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_PATHS = {"os.rename": (0, 1), "os.link": (0, 1), "os.remove": (0,), "os.mkdir": (0,)}
_PATHS |= {"os.rmdir": (0,), "os.chmod": (0,), "os.truncate": (0,)}
_FOLDER_DESCRIPTOR = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.rename": 2}
_TOUCHES = ("open", "os.remove", "os.rmdir", "os.truncate", "os.write", "os.pwrite")
"""What must never happen to anything within an installed version."""
_WRITES = os.O_WRONLY | os.O_RDWR
_CONTROL_SECONDS = 0.02
_ANSWER_SECONDS = 5.0

_RULES = (
    (r" \(deleted\)", ""),
    (r"^models/\.staging/[^/]+/\d+-[0-9a-f]+", "models/.staging/M/V"),
    (r"^models/\.staging/[^/]+$", "models/.staging/M"),
    (r"^models/(?!\.)(?!models\.config)[^/]+", "models/M"),
    (r"^(models/M)/\d+", r"\1/V"),
    (r"/\.(removing|foreign)-\d+-\d+", r"/.\1-V"),
    (r"/\.?\d+\.json", "/V.json"),
    (r"(/files|/linked|\.removing-V)/.*", r"\1/..."),
    (r"^(models/M/V)/.*", r"\1/..."),
    (r"(/model)/\d+/.*", r"\1/V/..."),
    (r"(/model)/\d+$", r"\1/V"),
    (r"^state/mirror(\.new)?/.*", r"state/mirror\1/..."),
    (r"[0-9a-f]{12,}", "ID"),
)


class Luck:
    """What goes wrong from now on, and the journal of what was seen."""

    def __init__(self, folder: Path, control: Path, journal: Path, rest_port: int) -> None:
        self._root = f"{folder}/"
        self._control = control
        self._rest_port = rest_port
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._dice = random.Random(os.environ.get("CHAOS_SEED", ""))
        self._busy = threading.local()
        self._met: set[str] = set()
        self._said: dict[str, Any] = {}
        self._read_at_ns = 0
        self._real_write = os.write
        self._read_control()

    # --- what was said ------------------------------------------------------------------------

    def follow(self) -> None:
        """Take up what the control file says, for ever."""
        while True:
            time.sleep(_CONTROL_SECONDS)
            self._busy.is_own = True
            self._read_control()

    def _read_control(self) -> None:
        try:
            changed_at_ns = self._control.stat().st_mtime_ns
            if changed_at_ns != self._read_at_ns:
                self._said = json.loads(self._control.read_text())
                self._read_at_ns = changed_at_ns
        except (OSError, ValueError):
            pass

    @property
    def clock_seconds(self) -> float:
        """How wrong the wall clock is."""
        return float(self._said.get("clock_seconds", 0.0))

    # --- what happens -------------------------------------------------------------------------

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES and not isinstance(path, int):
                self.meet("open", os.fsdecode(path))
        elif event in _PATHS:
            at = _FOLDER_DESCRIPTOR.get(event)
            folder = arguments[at] if at is not None and len(arguments) > at else -1
            paths = [_resolve(arguments[index], folder) for index in _PATHS[event]]
            if event == "os.rename" and self._is_own_path(paths[0]):
                self._note_removal(*paths)
            self.meet(event, *paths)
        elif event == "ctypes.dlsym" and arguments[1] == "renameat2":
            self.meet("renameat2", *_find_exchanged())

    def meet(self, event: str, *paths: str) -> None:
        """Let what is due happen right before this change of the disk."""
        if getattr(self._busy, "is_own", False) or not any(map(self._is_own_path, paths)):
            return
        names = [self._name(path) for path in paths]
        point = f"{event} {' -> '.join(names)}"
        if point not in self._met:
            self._met.add(point)
            self.note({"point": point})
        is_installed = names[0].startswith("models/M/V/")
        if event in _TOUCHES and (is_installed or _is_shared(event, paths[0])):
            self.note({"touched": paths[0]})
        said = self._said
        if said.get("die_at") == point:
            self.note({"died_at": point})
            os.kill(os.getpid(), signal.SIGKILL)
        number = said.get("errno")
        if number and names[0].startswith(said.get("within", "")):
            # What undoes a change is let through as a full disk lets it.
            if event in ("os.remove", "os.rmdir") and os.strerror(number).startswith("No space"):
                return
            if self._dice.random() < said.get("share", 1.0):
                raise OSError(number, os.strerror(number), paths[0])

    def note(self, entry: dict[str, Any]) -> None:
        """Append to the journal."""
        self._real_write(self._journal, (json.dumps(entry) + "\n").encode())

    def _note_removal(self, source: str, target: str) -> None:
        match = re.fullmatch(r"models/([^/.][^/]*)/(\d+)", source.removeprefix(self._root))
        if match is None or not Path(target).name.startswith(".removing-"):
            return
        model, version = match[1], int(match[2])
        self._busy.is_own = True
        try:
            config = Path(self._root, "models", "models.config").read_text()
        except OSError:
            config = ""
        finally:
            self._busy.is_own = False
        entry = {"removed": [model, version], "config": config, "at": time.monotonic()}
        self.note({**entry, "states": self._ask_server(model)})

    def _ask_server(self, model: str) -> dict[str, str] | None:
        url = f"http://127.0.0.1:{self._rest_port}/v1/models/{model}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=_ANSWER_SECONDS) as answer:
                statuses = json.load(answer)["model_version_status"]
        except urllib.error.HTTPError:
            return {}  # it knows no such model
        except OSError:
            return None
        return {str(item["version"]): str(item["state"]) for item in statuses}

    def _is_own_path(self, path: str) -> bool:
        return path.startswith(self._root) and not path.endswith(".log")

    def _name(self, path: str) -> str:
        name = path.removeprefix(self._root)
        for pattern, text in _RULES:
            name = re.sub(pattern, text, name)
        return name


def _resolve(path: object, folder: object) -> str:
    """Return a path as it is, also where it was given beneath an open folder."""
    if isinstance(path, int):
        return _path_of(path)
    text = os.fsdecode(path)  # type: ignore[arg-type]
    if not text.startswith("/") and isinstance(folder, int) and folder >= 0:
        return f"{_path_of(folder)}/{text}"
    return text


def _find_exchanged() -> tuple[str, str]:
    """Return what reconciler.files.exchange, which is calling, was given: the hook is not told."""
    frame = sys._getframe()
    while frame.f_code.co_name != "exchange":
        assert frame.f_back is not None
        frame = frame.f_back
    return str(frame.f_locals["first"]), str(frame.f_locals["second"])


def _is_shared(event: str, path: str) -> bool:
    """Whether something is written to that has another name, as what two versions share."""
    if event in ("os.remove", "os.rmdir"):
        return False
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink > 1


def _path_of(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


def _wrap(name: str, luck: Luck) -> Callable[..., Any]:
    real = getattr(os, name)

    def wrapped(descriptor: int, *arguments: Any) -> Any:
        luck.meet(f"os.{name}", _path_of(descriptor))
        return real(descriptor, *arguments)

    return wrapped


def main() -> None:
    luck = Luck(
        Path(os.environ["CHAOS_FOLDER"]),
        Path(os.environ["CHAOS_CONTROL"]),
        Path(os.environ["CHAOS_JOURNAL"]),
        int(os.environ["CHAOS_REST_PORT"]),
    )
    threading.Thread(target=luck.follow, daemon=True).start()
    real_time, real_time_ns = time.time, time.time_ns
    time.time = lambda: real_time() + luck.clock_seconds
    time.time_ns = lambda: real_time_ns() + int(luck.clock_seconds * 1e9)
    # The half of gRPC that is not Python goes by the machine's clock: by the wrong one its half in
    # Python would give it deadlines that are over, which no clock that jumps does.
    vars(import_module("grpc.aio._utils"))["time"] = SimpleNamespace(time=real_time)
    for name in ("write", "pwrite", "fsync"):
        setattr(os, name, _wrap(name, luck))
    sys.addaudithook(luck.watch)
    from reconciler.cli.main import main as run_command
    from reconciler.rotation import Rotation

    Rotation.__init__.__defaults__ = (0,)  # of all_at_once

    run_command()


if __name__ == "__main__":
    main()
