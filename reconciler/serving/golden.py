"""Asks a new version its golden requests, before anybody else asks it anything.

The file is what TensorFlow Serving takes for a warm-up: TFRecords of PredictionLog, in the
version's folder. The version is loaded under a name of its own for this (planning/golden.py), so
each request is sent with that name and otherwise just as it was recorded. One after the other, each
with the deadline that the deployment gives; the first that fails or is late ends it.
"""

import asyncio
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from reconciler.errors import ServingError
from reconciler.model import Golden
from reconciler.serving.protocol.golden_pb2 import InferenceRequest, PredictionLog
from reconciler.threads import run_beside

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_REQUESTS = 1000
"""As many as TensorFlow Serving takes for a warm-up."""
LONGEST_ANSWER_SECONDS = 3600.0
"""What a deployment may allow for one answer at most."""
CONNECT_SECONDS = 10.0
_MAX_MESSAGE_CHARACTERS = 1000
_SERVICE = "/tensorflow.serving.PredictionService"
_METHODS = {
    "predict_log": ("predict", f"{_SERVICE}/Predict"),
    "classify_log": ("classify", f"{_SERVICE}/Classify"),
    "regress_log": ("regress", f"{_SERVICE}/Regress"),
}
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),  # the server is a neighbour; a proxy would only break it
    # Its own connection, so that a version that floods it with answers disturbs no status call.
    ("grpc.use_local_subchannel_pool", 1),
)
_HEADER_BYTES = 12
_FOOTER_BYTES = 4
_CHECKSUM_MASK_DELTA = 0xA282EAD8


class GoldenError(ServingError):
    """A version that did not answer its golden requests, or whose requests cannot be read.

    The message is what a sentence about the version's golden requests goes on with.
    """

    reason = "GoldenFailed"


@dataclass(frozen=True, slots=True)
class GoldenRequest:
    """One recorded request, ready to be sent."""

    kind: str
    """`predict`, `classify` or `regress`."""
    path: str
    """Of the remote method."""
    content: bytes


async def try_version(
    address: str, folder: Path, golden: Golden, *, name: str, version: int
) -> int:
    """Ask the golden requests of the version in `folder`, which is loaded as `name`.

    Returns how many there are. Raises GoldenError when one of them is not answered well in time,
    or when there are none that can be asked.
    """
    requests = await run_beside(
        lambda: read_requests(folder, golden.path, name=name, version=version), "golden requests"
    )
    await replay(address, requests, golden.within_seconds)
    return len(requests)


def read_requests(folder: Path, path: str, *, name: str, version: int) -> list[GoldenRequest]:
    """Return the requests in the file at `path` of a version's folder, addressed to `name`.

    Raises GoldenError for a file that is missing, damaged, too large or without any request, and
    for a record that cannot be asked.
    """
    try:
        with (folder / path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise GoldenError(
            f"there is no {path} in its folder; publish the requests with the version, or take"
            " `golden` out of the deployment"
        ) from None
    except OSError as error:
        raise GoldenError(f"{path} in its folder cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES // (1024 * 1024)
        raise GoldenError(f"{path} is larger than the {limit} MiB that are read; keep fewer")
    requests = []
    for number, record in enumerate(_split_records(content, path), 1):
        if number > MAX_REQUESTS:
            raise GoldenError(f"{path} holds more than {MAX_REQUESTS} requests; keep fewer")
        requests.append(_address(record, f"record {number} of {path}", name, version))
    if not requests:
        raise GoldenError(f"{path} holds none; a version that is asked nothing has proven nothing")
    return requests


def _split_records(content: bytes, path: str) -> Iterator[bytes]:
    """Yield the records of a TFRecord file: length, its checksum, the data, its checksum."""
    position, number = 0, 0
    while position < len(content):
        number += 1
        header = content[position : position + _HEADER_BYTES]
        if len(header) < _HEADER_BYTES or not _is_intact(header[:8], header[8:]):
            raise _damaged(number, path)
        begin = position + _HEADER_BYTES
        end = begin + int(struct.unpack("<Q", header[:8])[0])
        record = content[begin:end]
        if not _is_intact(record, content[end : end + _FOOTER_BYTES]):
            raise _damaged(number, path)
        yield record
        position = end + _FOOTER_BYTES


def _is_intact(data: bytes, stored: bytes) -> bool:
    checksum: int = google_crc32c.value(data)
    masked = ((checksum >> 15 | checksum << 17) + _CHECKSUM_MASK_DELTA) & 0xFFFFFFFF
    return stored == masked.to_bytes(_FOOTER_BYTES, "little")


def _damaged(number: int, path: str) -> GoldenError:
    return GoldenError(
        f"record {number} of {path} is cut off or damaged; write the file as"
        " tf.io.TFRecordWriter does, without compression"
    )


def _address(record: bytes, where: str, name: str, version: int) -> GoldenRequest:
    try:
        log = PredictionLog.FromString(record)
    except DecodeError:
        raise GoldenError(
            f"{where} is no PredictionLog; write tensorflow_serving.apis.prediction_log_pb2"
            ".PredictionLog, as for a warm-up"
        ) from None
    kind = log.WhichOneof("log_type")
    if kind not in _METHODS:
        what = f"a {kind.removesuffix('_log')}" if kind else "no"
        raise GoldenError(
            f"{where} holds {what} request, which cannot be replayed; only predict, classify and"
            " regress can"
        )
    request: InferenceRequest = getattr(log, kind).request
    # The recorded version or label is one of long ago; the signature is part of the question.
    request.model_spec.name = name
    request.model_spec.version.value = version
    word, method = _METHODS[kind]
    return GoldenRequest(word, method, request.SerializeToString())


async def replay(address: str, requests: Sequence[GoldenRequest], within_seconds: float) -> None:
    """Send the requests one by one; raises GoldenError at the first that is not answered well."""
    within_seconds = min(within_seconds, LONGEST_ANSWER_SECONDS)
    async with grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
        await _connect(channel, address)
        for number, request in enumerate(requests, 1):
            what = f"request {number} of {len(requests)} ({request.kind})"
            ask = channel.unary_unary(request.path)
            try:
                await ask(request.content, timeout=within_seconds)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    limit = _show_seconds(within_seconds)
                    raise GoldenError(f"{what} was not answered within {limit}") from None
                details = (error.details() or "no message")[:_MAX_MESSAGE_CHARACTERS]
                raise GoldenError(
                    f"{what} was answered with {error.code().name}: {details}"
                ) from None


async def _connect(channel: grpc.aio.Channel, address: str) -> None:
    """Wait for the connection, so that making it is not counted as the version's slowness."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await channel.channel_ready()
    except TimeoutError:
        raise GoldenError(
            f"TensorFlow Serving at {address} could not be reached within {CONNECT_SECONDS:g} s"
            " to ask them"
        ) from None


def _show_seconds(seconds: float) -> str:
    """Return a limit as the deployment gives it: `200 ms`, `1.5 s`."""
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"
