"""Regenerates the committed protocol modules: `python -m reconciler.serving.protocol.generate`.

The generated modules are committed because a node has the protobuf runtime and no compiler; a
test regenerates and compares, so they cannot drift from the .proto files.
"""

import sys
from pathlib import Path

_FOLDER = Path(__file__).parent
_ROOT = _FOLDER.parents[2]
PROTO_FILES = ("control.proto", "golden.proto", "health.proto", "inference.proto")


def generate(output: Path) -> None:
    """Write the modules for all .proto files under `output`, by their full package path.

    Raises RuntimeError when the compiler refuses a file; it has then said why on stderr.
    """
    import grpc_tools  # only where the modules are regenerated, never on a node
    from grpc_tools import protoc

    code = protoc.main(
        [
            "protoc",
            f"--proto_path={_ROOT}",
            f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={output}",
            f"--pyi_out={output}",
            *(str(_FOLDER / name) for name in PROTO_FILES),
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc ended with exit code {code}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else _ROOT)
