"""API keys: ``id.secret`` with 256 random bits, kept as HMAC-SHA256 under a pepper file beside them.

A key belongs to one tenant, may be bound to some of its collections, and says what may be done with it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Literal, cast, get_args

from pipeline import key_files
from pipeline.errors import InvalidRequestError, NotFoundError
from pipeline.originals import disk_errors
from pipeline.records import check_name

Access = Literal["read", "write", "operate"]

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key. ``revoked`` is empty while it is valid; times are ISO 8601 in UTC.

    ``collections`` are names, or beginnings of names followed by ``*``. ``access``: "read" searches and
    looks, "write" also uploads and deletes, "operate" sees metrics and nothing else.
    """

    id: str
    name: str
    digest: str
    created: str
    revoked: str = ""
    tenant: str = "default"
    collections: tuple[str, ...] = ("*",)
    access: Access = "write"


class KeyRing:
    """The keys of one data directory. Changes by another process count from the next request on."""

    def __init__(self, root: Path) -> None:
        self._file = root / key_files.KEYS
        self._pepper_file = root / key_files.PEPPER
        self._changing = key_files.lock(root)
        self._turn = Lock()
        self._lock = Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._keys: Mapping[str, Key] = {}
        self._pepper = b""

    def keys(self) -> list[Key]:
        """All keys ever created, oldest first."""
        return list(self._read().values())

    @property
    def required(self) -> bool:
        """Whether a key has ever been created. Revoking the last one does not open the service again."""
        return bool(self._read())

    def create(
        self,
        name: str,
        *,
        tenant: str = "default",
        collections: tuple[str, ...] = ("*",),
        access: str = "write",
    ) -> str:
        """Make a key and return ``id.secret``, which cannot be shown again.

        Raises InvalidRequestError for a name of a tenant or collection that none can have.
        """
        check_name("tenant", tenant)
        for collection in collections:
            if collection != "*":
                check_name("collection", collection.removesuffix("*"))
        if not collections or access not in get_args(Access):
            raise InvalidRequestError(
                f"A key needs a collection and an access, not {collections!r} and {access!r}.",
                remedy=f"Name one or more collections, and one of {', '.join(get_args(Access))}.",
            )
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(_SECRET_BYTES)
        with self._alone():
            if not self._pepper_file.exists():
                key_files.write(self._pepper_file, secrets.token_bytes(_SECRET_BYTES))
            keys = self._read()
            key = Key(
                identity,
                name,
                self._digest(identity, secret),
                _now(),
                "",
                tenant,
                collections,
                cast(Access, access),
            )
            self._save({**keys, identity: key})
        return f"{identity}.{secret}"

    def revoke(self, identity: str) -> Key:
        """Make a key invalid from the next request on. Raises NotFoundError."""
        if identity not in self._read():
            raise NotFoundError(
                f"There is no key {identity!r}.", remedy="`longleaf keys list` shows the ids of all keys."
            )
        with self._alone():
            keys = self._read()
            gone = replace(keys[identity], revoked=keys[identity].revoked or _now())
            self._save({**keys, identity: gone})
        return gone

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One change at a time, whatever processes there are. Raises UnavailableError."""
        with disk_errors(self._file.parent):
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._turn, key_files.held(self._changing):
            yield

    def accepts(self, presented: str) -> Key | None:
        """The valid key that ``presented`` is, or None. Takes the same time for wrong ids and secrets."""
        identity, _, secret = presented.partition(".")
        key = self._read().get(identity)
        expected = key.digest if key else "0" * 64
        same = hmac.compare_digest(self._digest(identity, secret), expected)
        return key if key and same and not key.revoked else None

    def _digest(self, identity: str, secret: str) -> str:
        if not self._pepper:
            self._pepper = self._pepper_file.read_bytes() if self._pepper_file.exists() else b"none"
        return hmac.digest(self._pepper, f"{identity}.{secret}".encode(), hashlib.sha256).hex()

    def _read(self) -> Mapping[str, Key]:
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            return {}
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        with self._lock:
            if stamp != self._stamp:
                self._keys = key_files.read(self._file, _key)
                self._pepper = b""
                self._stamp = stamp
            return self._keys

    def _save(self, keys: Mapping[str, Key]) -> None:
        key_files.write_rows(self._file, map(asdict, keys.values()))


def _key(row: Mapping[str, object]) -> Key:
    values: dict[str, Any] = {**row}
    if "collections" in values:
        values["collections"] = tuple(values["collections"])
    return Key(**values)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
