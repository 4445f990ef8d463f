"""The container of a Word document: decryption, and which part is which."""

from __future__ import annotations

import io
from collections.abc import Iterator

import msoffcrypto
import msoffcrypto.exceptions

from pipeline.errors import DamagedFileError, PasswordRequiredError, UnsupportedFormatError
from pipeline.read.archive import Archive, resolve
from pipeline.read.builder import Hints
from pipeline.read.markup import parse_xml, text_of

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""The signature of the container that holds an encrypted document."""


def decrypted(data: bytes, hints: Hints) -> bytes:
    """The zip inside an encrypted Office file.

    Raises PasswordRequiredError when the password is missing or wrong, UnsupportedFormatError for the
    old binary format, DamagedFileError for the rest.
    """
    plain = io.BytesIO()
    try:
        office = msoffcrypto.OfficeFile(io.BytesIO(data))
        if not office.is_encrypted() or office.format != "ooxml":
            raise UnsupportedFormatError(
                f"{hints.name or 'The file'} is a Word 97-2003 document (.doc), which has no reader.",
                remedy="Save it as .docx.",
            )
        if hints.password is None:
            raise PasswordRequiredError(
                f"{hints.name or 'The document'} is encrypted.", remedy="Give its password."
            )
        office.load_key(password=hints.password, verify_password=True)
        office.decrypt(plain)
    except msoffcrypto.exceptions.InvalidKeyError as error:
        raise PasswordRequiredError(
            f"The password given for {hints.name or 'the document'} is wrong.",
            remedy="Give the right password.",
        ) from error
    except (PasswordRequiredError, UnsupportedFormatError):
        raise
    except Exception as error:  # damaged containers raise whatever their bytes provoke
        raise DamagedFileError(
            f"{hints.name or 'The file'} is a damaged encrypted Office file: {error}.",
            remedy="Export or download the file again.",
        ) from error
    return plain.getvalue()


def relations(archive: Archive, part: str) -> Iterator[tuple[str, str]]:
    """Kind and target of everything a part refers to inside the archive."""
    folder, _, file = part.rpartition("/")
    path = f"{folder}/_rels/{file}.rels" if folder else f"_rels/{file}.rels"
    if path not in archive:
        return
    for relation in parse_xml(text_of(archive.read(path)).text, path):
        target = relation.get("Target")
        if target and relation.get("TargetMode") != "External":
            yield (relation.get("Type") or "").rpartition("/")[2], resolve(part, target)
