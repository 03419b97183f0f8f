"""What must outlive the agent of its work on the server's container: a small JSON file.

Where a replacement stands is not in it: the engine itself says that (moves.py). A file that cannot
be read or written costs at most one more try of an update that failed before.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from reconciler.files import write_atomically
from reconciler.model import ServerSpec

_log = logging.getLogger(__name__)
_MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Notes:
    """What was begun, and what is not to be tried again."""

    failed: ServerSpec | None = None
    """What git said when an update failed; not tried again until it says something else."""
    failure: str = ""
    """Why, in words."""
    restarting: str = ""
    """The id of the container that is being restarted: if it is found stopped, it is started."""


def load_notes(path: Path) -> Notes:
    """Return what was noted; nothing where there is no file that can be read."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return Notes()
        fields = json.loads(path.read_bytes())
        failed = fields["failed"]
        return Notes(
            failed=failed
            and ServerSpec(
                failed["image"], None if failed["flags"] is None else tuple(failed["flags"])
            ),
            failure=str(fields["failure"]),
            restarting=str(fields["restarting"]),
        )
    except FileNotFoundError:
        return Notes()
    except (OSError, ValueError, TypeError, LookupError) as error:
        _log.warning("%s is not used, it cannot be read: %s", path, error)
        return Notes()


def save_notes(path: Path, notes: Notes) -> None:
    """Write the notes down, or say that they cannot be."""
    try:
        write_atomically(path, json.dumps(asdict(notes)).encode(), 0o600)
    except OSError as error:
        _log.warning("%s cannot be written: %s", path, error)
