"""Files of documents: complete, removed for good, cached within a budget."""

from __future__ import annotations

import errno

import pytest

from pipeline.errors import DiskFullError, NotFoundError, StorageError
from pipeline.originals import DocumentCache, Originals, Stored, disk_errors
from pipeline.records import VersionKey
from pipeline.types import Document

KEY = VersionKey("default", "c", "a", 1)


def test_original_is_kept_and_shares_no_name_with_the_spool(tmp_path):
    originals = Originals(tmp_path)
    spooled = originals.spool("x") / "file"
    spooled.write_bytes(b"bytes as they came")
    alive = originals.spool("y-1")
    originals.write([Stored(KEY, Document("t", "text"), spooled)])
    originals.clear_spool({"y"})
    assert not spooled.exists() and alive.exists()
    originals.clear_spool(())
    assert originals.original(KEY).read_bytes() == b"bytes as they came"
    originals.remove([KEY, KEY])
    with pytest.raises(NotFoundError, match="given as text"):
        originals.original(KEY)
    assert list(tmp_path.iterdir()) == [tmp_path / "documents"]
    assert list((tmp_path / "documents").iterdir()) == []


def test_removing_one_version_keeps_the_other(tmp_path):
    originals = Originals(tmp_path)
    second = VersionKey("default", "c", "a", 2)
    originals.write([Stored(KEY, Document("t", "one"), None), Stored(second, Document("t", "two"), None)])
    originals.remove([KEY])
    assert originals.document(second).text == "two"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"text": 3}', b"\xff"])
def test_damaged_files_are_named(tmp_path, damage):
    originals = Originals(tmp_path)
    originals.write([Stored(KEY, Document("t", "text"), None)])
    (originals.folder(KEY) / "document.json").write_bytes(damage)
    with pytest.raises(StorageError, match="'a' version 1"):
        originals.document(KEY)


def test_full_disks_and_quotas_are_told_apart_from_other_errors(tmp_path):
    for code in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(DiskFullError), disk_errors(tmp_path):
            raise OSError(code, "full")
    with pytest.raises(StorageError, match="writable") as caught, disk_errors(tmp_path):
        raise OSError(errno.EROFS, "read-only")
    assert not isinstance(caught.value, DiskFullError)


def test_cache_stays_within_its_budget_and_drops_the_oldest():
    cache = DocumentCache(budget_bytes=10_000)
    loads = []

    def load(key):
        loads.append(key.document_id)
        return Document("t", key.document_id * 3000)

    keys = {name: VersionKey("t", "c", name, 1) for name in "abcd"}
    for name in "abcabcdabc":
        assert cache.get(keys[name], load).text[0] == name
        assert cache._bytes <= 10_000
    assert "".join(loads) == "abcdabc", "d pushed a out, then each pushed out the next"
    cache.evict([keys["c"], keys["d"]])
    cache.get(keys["c"], load)
    assert loads[-1] == "c"


def test_cache_refuses_what_would_fill_it():
    cache = DocumentCache(budget_bytes=100)
    key = VersionKey("t", "c", "a", 1)
    assert cache.get(key, lambda _: Document("t", "x" * 1000)).text == "x" * 1000
    assert cache._bytes == 0
