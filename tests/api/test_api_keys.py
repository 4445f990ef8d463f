from __future__ import annotations

import errno
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.keys import KeyRing
from pipeline.errors import DiskFullError, InvalidRequestError, NotFoundError, StorageError


def test_a_key_opens_until_it_is_revoked(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    assert not ring.required
    first, second = ring.create("a"), ring.create("b")
    assert ring.required
    assert ring.accepts(first).name == "a"
    ring.revoke(first.split(".")[0])
    assert ring.accepts(first) is None
    assert ring.accepts(second).name == "b"


def test_another_process_is_heard_at_once(tmp_path: Path) -> None:
    server, shell = KeyRing(tmp_path), KeyRing(tmp_path)
    assert server.accepts("x.y") is None
    key = shell.create("late")
    assert server.accepts(key)
    shell.revoke(key.split(".")[0])
    assert server.accepts(key) is None


def test_revoking_the_last_key_does_not_open_the_door(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    ring.revoke(ring.create("only").split(".")[0])
    assert KeyRing(tmp_path).required


def test_the_secret_is_nowhere_on_disk(tmp_path: Path) -> None:
    key = KeyRing(tmp_path).create("a")
    secret = key.split(".")[1].encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"keys.json", "keys.pepper", "keys.lock"}
    for path in files:
        assert secret not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_a_key_of_another_pepper_is_refused(tmp_path: Path) -> None:
    key = KeyRing(tmp_path).create("a")
    (tmp_path / "keys.pepper").write_bytes(b"0" * 32)
    assert KeyRing(tmp_path).accepts(key) is None


@pytest.mark.parametrize("forged", ["", ".", "nobody.secret", "a" * 10_000, "\u00e9.\u00e9"])
def test_forgeries_are_refused(tmp_path: Path, forged: str) -> None:
    ring = KeyRing(tmp_path)
    key = ring.create("a")
    identity = key.split(".")[0]
    for attempt in (forged, f"{identity}.", f"{identity}.{forged}", key[:-1], key + "x"):
        assert ring.accepts(attempt) is None


def test_unknown_ids_and_damage_are_told(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    with pytest.raises(NotFoundError, match="'nobody'"):
        ring.revoke("nobody")
    ring.create("a")
    (tmp_path / "keys.json").write_text("[{]")
    with pytest.raises(StorageError, match="damaged"):
        KeyRing(tmp_path).keys()


def test_processes_that_create_keys_at_once_lose_none(tmp_path: Path) -> None:
    """Each reads, adds and writes the whole file; without a lock between them the last one wins."""
    rings = [KeyRing(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda i: rings[i % 4].create(f"key {i}"), range(24)))
    kept = KeyRing(tmp_path).keys()
    assert len(kept) == 24
    assert all(KeyRing(tmp_path).accepts(key) for key in made)


def test_a_key_says_whose_it_is_and_what_it_opens(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    secret = ring.create("a", tenant="acme", collections=("books", "notes-*"), access="read")
    key = KeyRing(tmp_path).accepts(secret)
    assert (key.tenant, key.collections, key.access) == ("acme", ("books", "notes-*"), "read")


def test_keys_of_the_first_version_open_the_default_tenant(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    secret = ring.create("old")
    [row] = json.loads((tmp_path / "keys.json").read_text())
    old = {name: row[name] for name in ("id", "name", "digest", "created", "revoked")}
    (tmp_path / "keys.json").write_text(json.dumps([old]))
    key = KeyRing(tmp_path).accepts(secret)
    assert (key.tenant, key.collections, key.access) == ("default", ("*",), "write")


@pytest.mark.parametrize(
    "wrong", [{"tenant": "a/b"}, {"collections": ("a*b",)}, {"collections": ()}, {"access": "root"}], ids=str
)
def test_a_key_for_nothing_is_not_made(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(InvalidRequestError):
        KeyRing(tmp_path).create("a", **wrong)
    assert not KeyRing(tmp_path).required


def test_a_full_disk_leaves_the_keys_as_they_were_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(tmp_path)
    ring.create("a")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFullError):
        ring.create("b")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
