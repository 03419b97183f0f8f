"""Checks a version's folder as TensorFlow's loader would, with its codes and messages.

Without TensorFlow this is the whole load: the graph file is parsed, the tags are matched, and the
weights are read through as a restore reads them (checkpoint.py). With TensorFlow, session.py
restores and runs the graph, and only the parsing is ours.

With `--standin_scripts=true` a file `standin.json` in the folder is obeyed first, so that a test
can have a load that lasts, fails or takes the server down:

    {"delay_seconds": 0.5, "fail": {"code": "RESOURCE_EXHAUSTED", "message": "..."}, "crash": true}
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from reconciler.serving.protocol.control_pb2 import Code
from reconciler.serving.protocol.inference_pb2 import (
    MetaGraphDef,
    SavedModel,
    SignatureDef,
    TensorProto,
)
from reconciler.standin import paths
from reconciler.standin.checkpoint import check_weights
from reconciler.standin.errors import StatusError, from_os_error

SCRIPT_FILE = "standin.json"

# Feeds by tensor name, and the names of the tensors to fetch.
Run = Callable[[Mapping[str, TensorProto], Sequence[str]], list[TensorProto]]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A version in memory; `run` is None where nothing can be predicted."""

    signatures: Mapping[str, SignatureDef]
    run: Run | None = None
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class FolderLoader:
    """Loads by checking alone."""

    tags: frozenset[str] = frozenset({"serve"})
    scripts: bool = False

    def estimate(self, path: str) -> None:
        """List every folder and size every file below `path`, as the memory estimate does."""
        paths.require(path)
        folders = [path]
        for folder in folders:
            for name in paths.list_children(folder):
                child = paths.join(folder, name)
                local = Path(paths.to_local(child))
                if local.is_dir():
                    folders.append(child)
                    continue
                try:
                    local.stat()
                except OSError as error:
                    raise from_os_error(child, error) from None

    def load(self, path: str) -> LoadedModel:
        """Check the graph and the weights; raises StatusError as TensorFlow's loader would."""
        if self.scripts:
            obey_script(path)
        graph = read_meta_graph(path, self.tags)[0]
        check_weights(path)
        return LoadedModel(dict(graph.signature_def))


def read_meta_graph(path: str, tags: frozenset[str]) -> tuple[MetaGraphDef, bytes]:
    """Return the graph with exactly these tags and the bytes of the binary file it came from.

    The bytes are empty for a saved_model.pbtxt. Raises StatusError.
    """
    folder = Path(paths.to_local(path))
    binary, text = folder / "saved_model.pb", folder / "saved_model.pbtxt"
    content = b""
    if binary.exists():
        try:
            content = binary.read_bytes()
            model = SavedModel.FromString(content)
        except OSError as error:
            raise from_os_error(paths.join(path, binary.name), error) from None
        except DecodeError:
            # What is left of the file when the parser gives up, not that it gave up.
            raise StatusError(Code.OUT_OF_RANGE, "Read less bytes than requested") from None
    elif text.exists():
        try:
            model = text_format.Parse(
                text.read_text(errors="replace"), SavedModel(), allow_unknown_field=True
            )
        except text_format.ParseError:
            raise StatusError(
                Code.DATA_LOSS, f"Can't parse {paths.join(path, text.name)} as text proto"
            ) from None
    elif (folder / "export.meta").exists():
        raise StatusError(Code.UNIMPLEMENTED, "Session Bundle is deprecated and removed.")
    else:
        raise StatusError(
            Code.NOT_FOUND,
            "Specified file path does not appear to contain a SavedModel bundle (should have a"
            f" file called `saved_model.pb`)\nSpecified file path: {path}",
        )
    for graph in model.meta_graphs:
        if set(graph.meta_info_def.tags) == tags:
            return graph, content
    raise StatusError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tags))} }}."
        " To inspect available tag-sets in the SavedModel, please use the SavedModel CLI:"
        " `saved_model_cli`",
    )


def obey_script(path: str) -> None:
    """Do what the script in the version's folder says, if there is one."""
    try:
        script: Any = json.loads(Path(paths.to_local(path), SCRIPT_FILE).read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise StatusError(Code.INVALID_ARGUMENT, f"{path}/{SCRIPT_FILE}: {error}") from None
    time.sleep(float(script.get("delay_seconds", 0)))
    if script.get("crash"):
        os.abort()
    if fail := script.get("fail"):
        raise StatusError(getattr(Code, fail["code"]), str(fail["message"]))
