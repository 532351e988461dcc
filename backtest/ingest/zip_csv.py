"""Read one CSV, plain or in a zip, in memory: verified by its ``.CHECKSUM`` and bounded in size."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from isal import isal_zlib  # more than twice as fast as zlib; unpacking is half of an import

from backtest.errors import DataError

CHECKSUM = ".CHECKSUM"
MOST_BYTES = 1 << 29
"""Of a CSV: four times a month of bars of one second."""
MOST_RATIO = 100
"""Bytes unpacked per byte packed: bars make 2 to 10."""
_INFLATE_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]
_PIECE = 1 << 18
_LOCAL = struct.Struct("<4s22x2H")  # local file header: signature, lengths of name and extra field


@dataclass(frozen=True)
class Csv:
    """A CSV file: its own name, its bytes, and the SHA-256 of its archive where a ``.CHECKSUM`` confirms it."""

    name: str
    content: pa.Buffer
    digest: str | None


def read_csv(file: Path) -> Csv:
    """The CSV in `file`, which is one or a zip that holds one.

    Raises
    ------
    DataError
        If it cannot be read, is damaged or encrypted, holds anything beside one CSV, names a place outside of its
        folder, unpacks to more than `MOST_BYTES` or `MOST_RATIO` times its size, or differs from its ``.CHECKSUM``.
    """
    content = _bytes_of(file)
    digest = _verify(file, content)
    if file.suffix.lower() != ".zip":
        return Csv(file.name, content, digest)
    with _damage(file), zipfile.ZipFile(pa.BufferReader(content)) as archive:
        member = _member(file, archive)
        return Csv(member.filename, _unpack(file, content, member), digest)


def member_name(file: Path) -> str:
    """Name of the CSV in `file`, without unpacking it; DataError as `read_csv`."""
    if file.suffix.lower() != ".zip":
        return file.name
    with _damage(file), zipfile.ZipFile(file) as archive:
        return _member(file, archive).filename


def _bytes_of(file: Path) -> pa.Buffer:
    """The bytes of a file, in memory of Arrow's pool: fresh pages for each would cost half as much as unpacking."""
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MOST_BYTES:
                raise DataError(f"{file}: has {size:,} bytes; at most {MOST_BYTES:,} are read")
            content = pa.allocate_buffer(size)
            if stream.readinto(content) != size or stream.read(1):
                raise DataError(f"{file}: changed while it was read; is it still being written?")
            return content
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def _verify(file: Path, content: pa.Buffer) -> str | None:
    """The SHA-256 of a file whose ``.CHECKSUM`` agrees; None if there is no such file."""
    beside = file.with_name(file.name + CHECKSUM)
    if not beside.is_file():
        return None
    line = bytes(_bytes_of(beside)[:4096]).decode("utf-8", "replace")
    match = re.match(r"\s*([0-9a-fA-F]{64})(\s|$)", line)
    if match is None:
        raise DataError(f"{beside}: must begin with a SHA-256 of 64 digits; got {line[:80]!r}")
    found = hashlib.sha256(content).hexdigest()
    if found != match[1].lower():
        raise DataError(f"{file}: its SHA-256 is {found}, {beside.name} says {match[1].lower()}; download both again")
    return found


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    """What goes wrong in a zip, as one DataError that names it."""
    try:
        yield
    except DataError:
        raise
    except (
        zipfile.BadZipFile,
        _INFLATE_ERROR,
        struct.error,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
        OverflowError,
    ) as error:
        raise DataError(f"{file}: not a readable zip; truncated or damaged ({error})") from error


def _member(file: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one CSV of a zip."""
    members = archive.infolist()
    names = ", ".join(repr(member.filename) for member in members[:5]) or "nothing"
    if len(members) != 1 or not members[0].filename.lower().endswith(".csv"):
        raise DataError(f"{file}: must hold exactly one CSV; it holds {len(members)} entries: {names}")
    member = members[0]
    if re.search(r"[/\\:\x00]", member.orig_filename) or member.filename.startswith("."):
        raise DataError(f"{file}: the name of its entry must be a plain file name; got {member.orig_filename!r}")
    if member.flag_bits & 0x1:
        raise DataError(f"{file}: is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{file}: must be stored or deflated; its method is {member.compress_type}")
    size, packed = member.file_size, member.compress_size
    if size > MOST_BYTES or size > MOST_RATIO * max(packed, 64):
        raise DataError(
            f"{file}: declares {size:,} bytes in {packed:,}; at most {MOST_BYTES:,}, and {MOST_RATIO} times as many as "
            "packed, are read"
        )
    return member


def _unpack(file: Path, content: pa.Buffer, member: zipfile.ZipInfo) -> pa.Buffer:
    """The bytes of an entry: as many as declared, and with its CRC."""
    signature, name, extra = _LOCAL.unpack_from(content, member.header_offset)
    start = member.header_offset + _LOCAL.size + name + extra
    packed = memoryview(content).cast("B")[start : start + member.compress_size]
    if signature != b"PK\x03\x04" or len(packed) != member.compress_size:
        raise zipfile.BadZipFile("its entry is not where its directory says")
    data = pa.allocate_buffer(member.file_size)
    room, done, ended = memoryview(data).cast("B"), 0, member.compress_type == zipfile.ZIP_STORED
    inflate = isal_zlib.decompressobj(-15)
    for piece in (packed[at : at + _PIECE] for at in range(0, len(packed), _PIECE)):
        plain = piece if member.compress_type == zipfile.ZIP_STORED else inflate.decompress(piece, len(room) - done + 1)
        if done + len(plain) > len(room):
            raise DataError(f"{file}: holds more than the {len(room):,} bytes that it declares")
        room[done : done + len(plain)] = plain
        done += len(plain)
    if done != len(room) or not (ended or inflate.eof):
        raise DataError(f"{file}: declares {len(room):,} bytes and holds {done:,}; download it again")
    if isal_zlib.crc32(room) != member.CRC:
        raise DataError(f"{file}: its CSV does not meet the CRC of the zip; download it again")
    return data
