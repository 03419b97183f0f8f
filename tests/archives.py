"""Archives for tests: honest ones, and such as no honest tool would write."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from typing import Literal

Packing = Literal["tar", "tar.gz", "tgz", "zip"]
PACKINGS: tuple[Packing, ...] = ("tar", "tar.gz", "tgz", "zip")


def pack(files: Mapping[str, bytes], packing: Packing, within: str = "") -> bytes:
    """Return an archive of `files`, their names after `within`, which is `./` or `folder/`."""
    named = {within + name: content for name, content in files.items()}
    if packing == "zip":
        return pack_zip(named.items())
    return pack_tar(map(make_member, named, named.values()), compressed=packing != "tar")


def make_member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """Return an entry of a tar; `target` is where a link points."""
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, target
    return member, content


def pack_tar(
    members: Iterable[tuple[tarfile.TarInfo, bytes]], *, compressed: bool = False
) -> bytes:
    """Return a tar of these entries."""
    buffer = io.BytesIO()
    mode: Literal["w:gz", "w"] = "w:gz" if compressed else "w"
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def pack_zip(
    entries: Iterable[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """Return a zip of these entries; two may have one name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for entry, content in entries:
            info = entry if isinstance(entry, zipfile.ZipInfo) else zipfile.ZipInfo(entry)
            # zipfile warns of a name that is there already, which is what some tests are about.
            archive.NameToInfo.pop(info.filename, None)
            archive.writestr(info, content, compress_type=compression)
    return buffer.getvalue()


def encrypt(archive: bytes) -> bytes:
    """Return a zip all of whose entries say that they are encrypted."""
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        changed = bytearray(archive)
        while (start := archive.find(signature, start + 1)) >= 0:
            changed[start + offset] |= 1
        archive = bytes(changed)
    return archive


def list_endlessly(count: int) -> bytes:
    """Return a zip that is nothing but a list of `count` entries."""
    name = b"a"
    record = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 9, len(name), *[0] * 6) + name
    directory = record * count
    numbers = min(count, 0xFFFF)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, numbers, numbers, len(directory), 0, 0)
    return directory + end
