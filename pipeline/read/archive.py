"""Zip containers (DOCX, EPUB), opened without trust: sizes are checked before anything is inflated."""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from types import TracebackType
from typing import IO, Self

from pipeline.errors import DamagedFileError, PasswordRequiredError, ReaderLimitError

MAX_MEMBERS = 20_000
MAX_MEMBER_BYTES = 128 * 2**20
MAX_TOTAL_BYTES = 512 * 2**20
_CHUNK_BYTES = 2**16
_ENCRYPTED = 0x1


class Archive:
    """A zip file whose members can be read by name, case-sensitively, within stated limits.

    Python's zip reader never yields more than a member's declared size, so checking that is enough.
    Raises DamagedFileError, ReaderLimitError and PasswordRequiredError.
    """

    def __init__(self, data: bytes, what: str) -> None:
        """``what`` names the format in error messages."""
        self._what = what
        self._read_bytes = 0
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, OSError, NotImplementedError) as error:
            raise self._damaged(str(error)) from error
        self._members = {info.filename.lstrip("/"): info for info in self._zip.infolist()}
        if len(self._members) > MAX_MEMBERS:
            raise ReaderLimitError(
                f"The {what} has {len(self._members)} members; at most {MAX_MEMBERS} are read.",
                remedy="Save the document again, without embedded files.",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        """Every member, in the archive's order."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """The whole of one member. Raises DamagedFileError when there is none of that name."""
        with self.open(name) as member:
            try:
                return member.read()
            except (
                zipfile.BadZipFile,
                zlib.error,
                EOFError,
                OSError,
                NotImplementedError,
                ValueError,
            ) as error:
                raise self._damaged(f"{name}: {error}") from error

    def open(self, name: str) -> IO[bytes]:
        """One member as a stream; reading it raises what a damaged zip raises."""
        info = self._members.get(name)
        if info is None:
            raise self._damaged(f"it has no {name}")
        if info.flag_bits & _ENCRYPTED:
            raise PasswordRequiredError(
                f"{name} in the {self._what} is encrypted.",
                remedy="Save the document without zip encryption.",
            )
        self._read_bytes += info.file_size
        if info.file_size > MAX_MEMBER_BYTES or self._read_bytes > MAX_TOTAL_BYTES:
            raise ReaderLimitError(
                f"{name} in the {self._what} would unpack to {info.file_size / 2**20:.0f} MiB; the limit is "
                f"{MAX_MEMBER_BYTES // 2**20} MiB a part and {MAX_TOTAL_BYTES // 2**20} MiB in all.",
                remedy="Split the document.",
            )
        try:
            return self._zip.open(info)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            ValueError,
            RuntimeError,
        ) as e:
            raise self._damaged(f"{name}: {e}") from e

    def _damaged(self, why: str) -> DamagedFileError:
        return DamagedFileError(
            f"This is not a valid {self._what}: {why}.", remedy="Export or download the file again."
        )


def resolve(base: str, target: str) -> str:
    """The member that ``target`` names, as written in the member ``base``."""
    if target.startswith("/"):
        return posixpath.normpath(target.lstrip("/"))
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), target)).lstrip("/")
