"""What cached KV states belong to and depend on, and the keyed names that follow from it.

Names and seals are HMACs under a key of the tenant, which is derived on the server from a secret that
never leaves the data directory. So no tenant can name, guess or be served another one's states, and a
file that was not written here, or not for this model and prefix, does not verify.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline import durable
from pipeline.errors import StorageError
from pipeline.originals import disk_errors
from pipeline.records import VersionKey

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Origin:
    """Everything outside the passage that decides its states. States of another origin are stale.

    ``model``, ``tokenizer`` and ``prefix`` are digests; ``positions`` says where a passage begins and
    how positions are encoded; ``layout`` is layers, heads and width of the tensors.
    """

    model: str
    tokenizer: str
    prefix: str
    positions: str
    dtype: str
    layout: str
    format: str

    def differences(self, other: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of the fields in which a stored origin differs."""
        return tuple(name for name, value in asdict(self).items() if other.get(name) != value)


@dataclass(frozen=True, slots=True)
class PassageKey:
    """One passage of one version of a document, as these tokens."""

    owner: VersionKey
    tokens_digest: str
    tokens: int

    @classmethod
    def of(cls, owner: VersionKey, ids: Iterable[int]) -> PassageKey:
        """The key of a passage with these token ids."""
        listed = list(ids)
        return cls(owner, ids_digest(listed), len(listed))


@dataclass(frozen=True, slots=True)
class Address:
    """Where states are kept: folders of tenant and owner, and the file's name without its ending."""

    tenant: str
    owner: str
    name: str

    @property
    def path(self) -> str:
        """Below the folder of the store."""
        return f"{self.tenant}/{self.owner}/{self.name}.safetensors"


class TenantKeys:
    """Keys of tenants, derived from one secret file that is made at first use."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.of = lru_cache(maxsize=1024)(self._of)

    @classmethod
    def in_folder(cls, folder: Path) -> TenantKeys:
        """With the secret of this folder. Raises StorageError if it cannot be read or is damaged."""
        path = folder / "kv.secret"
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                durable.create(path, secrets.token_bytes(_SECRET_BYTES), 0o600)
            secret = path.read_bytes()
        if len(secret) != _SECRET_BYTES:
            raise StorageError(
                f"{path} has {len(secret)} bytes instead of {_SECRET_BYTES}.",
                remedy="Remove it and the files beside it: cached contexts are then built anew.",
            )
        return cls(secret)

    def _of(self, tenant: str) -> bytes:
        return _mac(self._secret, "longleaf kv tenant", tenant)

    def owner(self, owner: VersionKey) -> tuple[str, str]:
        """Folder names of the tenant and of this version of the document."""
        key = self.of(owner.tenant)
        parts = (owner.collection, owner.document_id, str(owner.version))
        return _mac(key, "tenant").hex()[:16], _mac(key, "owner", *parts).hex()[:32]

    def address(self, passage: PassageKey, origin: Origin) -> Address:
        """Where the states of this passage are kept, if they are of this origin."""
        key, origin_text = self.of(passage.owner.tenant), canonical(asdict(origin))
        name = _mac(key, "passage", passage.tokens_digest, origin_text)
        return Address(*self.owner(passage.owner), name.hex()[:32])

    def seal(self, tenant: str, content: bytes) -> str:
        """The keyed seal of a manifest."""
        return hmac.new(self.of(tenant), b"seal\0" + content, hashlib.sha256).hexdigest()


def ids_digest(ids: Iterable[int]) -> str:
    """SHA-256 of token ids, in hexadecimal."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def canonical(content: Mapping[str, Any]) -> str:
    """JSON that is the same for equal content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _mac(key: bytes, *parts: str) -> bytes:
    framed = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hmac.new(key, framed, hashlib.sha256).digest()
