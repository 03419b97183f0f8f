"""Reads the weights of a SavedModel as a restore does, to find what is missing or damaged.

`variables/variables.index` is a table in LevelDB's format, uncompressed: a footer names the index
block, that one the data blocks; the empty key holds the number of shards, every other key one
tensor with its shard, offset, size and checksum (TensorFlow source, util/tensor_bundle). Folders
without an index file restore nothing and load all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from reconciler.serving.protocol.control_pb2 import Code
from reconciler.standin import paths
from reconciler.standin.errors import StatusError, from_os_error

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_CHECKSUM_MASK_DELTA = 0xA282EAD8
_MAX_INDEX_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_DT_STRING = 7
_DT_VARIANT = 21
# Where the message comes from in a graph; TensorFlow appends it to every error of an operation.
_NODE = "\n\t [[{{node RestoreV2}}]]"


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: int
    shard: int
    offset: int
    size: int
    masked_crc32c: int


def check_weights(path: str) -> None:
    """Read every tensor of the version in `path`; raises StatusError as the restore would."""
    prefix = paths.join(paths.join(path, "variables"), "variables")
    index = Path(paths.to_local(f"{prefix}.index"))
    if not index.exists():
        return
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise _damaged("the index is too large")
        table = index.read_bytes()
    except OSError as error:
        raise from_os_error(f"{prefix}.index", error) from None
    try:
        shards, tensors = _read_index(table)
    except (IndexError, ValueError):
        raise _damaged("block checksum mismatch") from None
    for shard in sorted({tensor.shard for tensor in tensors}):
        name = f"{prefix}.data-{shard:05d}-of-{shards:05d}"
        _check_shard(prefix, name, [tensor for tensor in tensors if tensor.shard == shard])


def _check_shard(prefix: str, name: str, tensors: list[_Tensor]) -> None:
    try:
        with Path(paths.to_local(name)).open("rb") as file:
            for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
                file.seek(tensor.offset)
                checksum, left = 0, tensor.size
                while left > 0:
                    chunk = file.read(min(left, _CHUNK_BYTES))
                    if not chunk:
                        raise StatusError(
                            Code.OUT_OF_RANGE, f"Read less bytes than requested{_NODE}"
                        )
                    checksum = google_crc32c.extend(checksum, chunk)
                    left -= len(chunk)
                stored = _unmask(tensor.masked_crc32c)
                # Strings and variants are summed in another way; their bytes were there at least.
                if tensor.dtype not in (_DT_STRING, _DT_VARIANT) and checksum != stored:
                    raise StatusError(
                        Code.DATA_LOSS,
                        f"TensorBundle at {prefix} shard {tensor.shard} ({tensor.size} bytes):"
                        f" Checksum does not match: stored {stored} vs. calculated on the"
                        f" restored bytes {checksum}{_NODE}",
                    )
    except OSError as error:
        raise StatusError(
            from_os_error(name, error).code, from_os_error(name, error).message + _NODE
        ) from None


def _read_index(table: bytes) -> tuple[int, list[_Tensor]]:
    if len(table) < _FOOTER_BYTES:
        raise _damaged("file is too short to be an sstable")
    footer = table[-_FOOTER_BYTES:]
    if int.from_bytes(footer[40:], "little") != _MAGIC:
        raise _damaged("not an sstable (bad magic number)")
    _, position = _read_handle(footer, 0)
    (offset, size), _ = _read_handle(footer, position)
    shards, tensors = 0, []
    for _, handle in _read_block(table[offset : offset + size]):
        (offset, size), _ = _read_handle(handle, 0)
        for key, value in _read_block(table[offset : offset + size]):
            fields = _read_fields(value)
            if key == b"":
                shards = fields.get(1, 0)
            else:
                tensors.append(
                    _Tensor(
                        dtype=fields.get(1, 0),
                        shard=fields.get(3, 0),
                        offset=fields.get(4, 0),
                        size=fields.get(5, 0),
                        masked_crc32c=fields.get(6, 0),
                    )
                )
    return shards, tensors


def _read_block(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a block, whose keys leave out what they share with the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise ValueError("a block ends before it begins")
    position, key = 0, b""
    while position < end:
        shared, position = _read_varint(block, position)
        unshared, position = _read_varint(block, position)
        size, position = _read_varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + size]
        position += size


def _read_handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = _read_varint(data, position)
    size, position = _read_varint(data, position)
    return (offset, size), position


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _read_fields(message: bytes) -> dict[int, int]:
    """Return the numbers in a protobuf message by field; what is nested in it is skipped."""
    fields: dict[int, int] = {}
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind == 0:
            fields[tag >> 3], position = _read_varint(message, position)
        elif kind == 2:
            size, position = _read_varint(message, position)
            position += size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            fields[tag >> 3] = int.from_bytes(message[position : position + size], "little")
            position += size
        else:
            raise ValueError("an unknown kind of field")
    return fields


def _unmask(masked: int) -> int:
    rotated = (masked - _CHECKSUM_MASK_DELTA) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _damaged(reason: str) -> StatusError:
    return StatusError(Code.DATA_LOSS, reason + _NODE)
