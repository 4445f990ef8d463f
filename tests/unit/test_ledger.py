"""The ledger keeps what it was told, and only what is live is seen."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from pipeline.errors import (
    ConflictError,
    DataVersionError,
    InvalidRequestError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from pipeline.ledger import Ledger
from pipeline.originals import Stored
from pipeline.records import Totals, VersionKey, VersionRecord
from pipeline.types import Block, Document, Page, Section

DOCUMENT = Document(
    title="Übung",
    text="Heading\n\nAbc défg 日本 𝄞",
    pages=(Page(1, 0, 9, "i"), Page(2, 9, 22)),
    sections=(Section("Heading", 1, 0, 22),),
    blocks=(Block("heading", 0, 7, 1), Block("paragraph", 9, 22)),
    media_type="text/markdown",
    metadata={"year": 1869, "publisher": {"country": "ru"}},
    warnings=("page 3 is missing",),
)


def record(document_id: str, **changes) -> VersionRecord:
    base = VersionRecord(
        document_id=document_id,
        sha256="00",
        digest="11",
        title="Title",
        media_type="text/plain",
        source_name="a/b.txt",
        metadata={"year": 1869, "publisher": {"country": "ru"}},
        bytes=10,
        pages=2,
        chars=22,
        tokens=7,
        passages=1,
        units=2,
        windowing="single window",
        warnings=("page 3 is missing",),
    )
    return replace(base, **changes)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    """Where the ledger is: a file of its own, or a PostgreSQL database."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres").database()


@pytest.fixture
def ledger(tmp_path, url):
    ledger = Ledger(tmp_path, url=url)
    ledger.create_collection("default", "c", fingerprint="f", chunking={"a": 1}, lexical={"b": 2.5})
    yield ledger
    ledger.close()


def store(ledger, *records, document=DOCUMENT, collection="c"):
    keys = ledger.stage("default", collection, records)
    ledger.originals.write([Stored(key, document, None) for key in keys])
    return ledger.publish(keys)


def test_collections_come_back_as_they_were_made(ledger, tmp_path, url):
    made = ledger.create_collection(
        "t2", "Other.x", fingerprint="g", chunking={}, lexical={}, settings={"s": [1]}
    )
    assert ledger.collection("t2", "Other.x") == made
    assert made.settings == {"s": [1]}
    assert made.created.tzinfo is not None
    assert [(c.tenant, c.name) for c in ledger.collections()] == [("default", "c"), ("t2", "Other.x")]
    assert [c.name for c in ledger.collections("default")] == ["c"]
    with pytest.raises(ConflictError, match="'c'"):
        ledger.create_collection("default", "c", fingerprint="f", chunking={}, lexical={})
    ledger.close()
    again = Ledger(tmp_path, url=url)
    assert again.collection("t2", "Other.x") == made
    again.close()


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a b", "ä", "a" * 65, "a\n", None, 3])
def test_bad_collection_names_are_refused(ledger, name):
    with pytest.raises(InvalidRequestError, match="1 to 64") as caught:
        ledger.create_collection("default", name, fingerprint="f", chunking={}, lexical={})
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\x00", "\u200bx", "\ud800", "a" * 257, None])
def test_bad_document_ids_are_refused(ledger, name):
    with pytest.raises(InvalidRequestError, match="256 printable"):
        ledger.document("default", "c", name)


@pytest.mark.parametrize("name", ["a/b c.pdf", "a" * 256, "日本語", "../../etc/passwd", "%2e", "'; --"])
def test_document_round_trip(ledger, name):
    store(ledger, record(name))
    found = ledger.document("default", "c", name)
    assert (found.id, found.version, found.metadata) == (name, 1, record(name).metadata)
    assert found.warnings == ("page 3 is missing",)
    assert found.created == found.updated
    loaded = ledger.load("default", "c", name)
    assert loaded == replace(DOCUMENT, id=name, version=1)
    assert loaded is ledger.load("default", "c", name, 1), "the second load comes from the cache"


def test_a_document_that_is_replaced_while_it_is_loaded_is_the_new_one(ledger, monkeypatch):
    store(ledger, record("a"))
    read = ledger.originals.document

    def interrupted(key):
        if key.version == 1:
            store(ledger, record("a"), document=replace(DOCUMENT, title="new"))
            ledger.originals.remove([key])
        return read(key)

    monkeypatch.setattr(ledger.originals, "document", interrupted)
    assert ledger.load("default", "c", "a").title == "new"
    ledger.originals.remove([VersionKey("default", "c", "a", 2)])
    ledger._cache.evict([VersionKey("default", "c", "a", 2)])
    with pytest.raises(StorageError, match="version 2"):
        ledger.load("default", "c", "a")


def test_ids_that_look_equal_are_equal(ledger):
    store(ledger, record("caf\u00e9"))
    assert ledger.document("default", "c", "cafe\u0301").id == "caf\u00e9"


def test_files_stay_below_the_root(ledger, tmp_path):
    store(ledger, record("../../../escape"))
    path = next(tmp_path.glob("documents/*/*/1/document.json"))
    assert path.parent == ledger.originals.folder(VersionKey("default", "c", "../../../escape", 1))


def test_unknown_things_are_not_found(ledger):
    with pytest.raises(NotFoundError, match="'nope'"):
        ledger.document("default", "c", "nope")
    for call in (ledger.documents, ledger.totals, ledger.collection):
        with pytest.raises(NotFoundError, match="collection 'x'"):
            call("default", "x")
    with pytest.raises(NotFoundError, match="collection 'x'"):
        ledger.load("default", "x", "nope")
    with pytest.raises(NotFoundError):
        ledger.delete("default", "c", "nope")
    with pytest.raises(NotFoundError):
        ledger.stage("other", "c", [record("a")])
    assert ledger.find("default", "c", "nope") is None


def test_staged_versions_are_not_seen(ledger):
    keys = ledger.stage("default", "c", [record("a")])
    assert ledger.find("default", "c", "a") is None
    assert ledger.documents("default", "c") == []
    assert ledger.live_versions("default", "c", ["a"]) == {}
    assert ledger.metadata_fields("default", "c") == {}
    assert ledger.leftovers() == keys
    ledger.retire(keys)
    ledger.forget(keys)
    assert ledger.leftovers() == []
    with pytest.raises(ConflictError, match="gone"):
        ledger.publish(keys)


def test_replacing_switches_at_once(ledger):
    store(ledger, record("a"))
    (published,) = store(
        ledger, record("a", title="New", metadata={"year": "x"}), document=Document("New", "new")
    )
    old = VersionKey("default", "c", "a", 1)
    assert (published.replaced, published.retired, published.superseded) == (1, (old,), False)
    found = ledger.document("default", "c", "a")
    assert (found.version, found.title) == (2, "New")
    assert found.created < found.updated
    assert ledger.load("default", "c", "a").text == "new"
    assert ledger.load("default", "c", "a", 1).text == DOCUMENT.text, "readable until it is removed"
    assert ledger.metadata_fields("default", "c") == {"year": "keyword"}
    ledger.originals.remove([old])
    ledger.forget([old])
    assert ledger.leftovers() == []
    with pytest.raises(NotFoundError, match=r"no version 1\. There are, newest first: 2; the live one is 2"):
        ledger.load("default", "c", "a", 1)


def test_the_newest_version_wins_whatever_the_order_of_publishing(ledger):
    first, second = (ledger.stage("default", "c", [record("a")])[0] for _ in range(2))
    assert ledger.publish([second])[0].replaced == 0
    late = ledger.publish([first])[0]
    assert (late.superseded, late.retired) == (True, (first,))
    assert ledger.document("default", "c", "a").version == 2


def test_deleting_hides_at_once_and_leaves_nothing_once_forgotten(ledger, tmp_path, url):
    store(ledger, record("canary-id", title="canary title", metadata={"canary": "canary value"}))
    (key,) = ledger.delete("default", "c", "canary-id")
    for look in (ledger.document, ledger.load, ledger.original):
        with pytest.raises(NotFoundError):
            look("default", "c", "canary-id")
    assert ledger.live_versions("default", "c", ["canary-id"]) == {}
    assert ledger.metadata_fields("default", "c") == {}
    assert ledger.leftovers() == [key]
    ledger.originals.remove([key])
    ledger.forget([key])
    if url is None:
        assert b"canary" not in (tmp_path / "ledger.sqlite").read_bytes(), "secure_delete is off"
    assert list(tmp_path.glob("documents/*")) == []
    store(ledger, record("canary-id"))
    assert ledger.document("default", "c", "canary-id").version == 2, "a number is never given out again"


def test_a_document_can_come_back_while_its_deletion_is_unfinished(ledger):
    store(ledger, record("a"))
    (old,) = ledger.delete("default", "c", "a")
    store(ledger, record("a"))
    assert ledger.document("default", "c", "a").version == 2
    ledger.forget([old])
    assert ledger.document("default", "c", "a").version == 2


def test_forget_never_touches_what_is_live(ledger):
    store(ledger, record("a"))
    ledger.forget([VersionKey("default", "c", "a", 1)])
    assert ledger.document("default", "c", "a").version == 1


def test_listing_pages_through_everything_once(ledger):
    ids = sorted(f"doc {i:03}" for i in range(25))
    store(ledger, *(record(name) for name in reversed(ids)))
    seen, after = [], None
    while page := ledger.documents("default", "c", after=after, limit=10):
        seen += [item.id for item in page]
        after = page[-1].id
    assert seen == ids
    assert ledger.totals("default", "c") == Totals(25, 250, 175, 25, 50)
    assert ledger.live_versions("default", "c", [*ids, "other"]) == dict.fromkeys(ids, (1, 1))
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidRequestError, match="limit"):
            ledger.documents("default", "c", limit=limit)


def test_live_versions_of_very_many(ledger):
    store(ledger, record("a"))
    assert ledger.live_versions("default", "c", ["a", *map(str, range(40_000))]) == {"a": (1, 1)}


def test_dropping_a_collection_frees_its_name(ledger):
    store(ledger, record("a"))
    ledger.drop_collection("default", "c")
    assert ledger.collections() == []
    with pytest.raises(NotFoundError):
        ledger.load("default", "c", "a")
    assert ledger.dropped_collections() == [("default", "c")]
    with pytest.raises(ConflictError):
        ledger.create_collection("default", "c", fingerprint="f", chunking={}, lexical={})
    ledger.forget_collection("default", "c")
    ledger.create_collection("default", "c", fingerprint="f", chunking={}, lexical={})
    assert ledger.documents("default", "c") == []
    ledger.forget_collection("default", "c")
    assert ledger.collection("default", "c"), "a live collection is not forgotten"


def test_field_types_follow_the_live_documents(ledger):
    store(ledger, record("a", metadata={"x": 1}), record("b", metadata={"x": "one"}))
    assert ledger.metadata_fields("default", "c") == {"x": "mixed"}
    ledger.delete("default", "c", "a")
    assert ledger.metadata_fields("default", "c") == {"x": "keyword"}


def test_settings_of_the_file_are_what_durability_needs(tmp_path):
    ledger = Ledger(tmp_path)
    with ledger.database.read() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert values == {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1, "secure_delete": 1}
    assert ledger.check() == []
    ledger.close()


def test_newer_data_is_refused(tmp_path):
    Ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("UPDATE data_version SET version = 999")
    connection.close()
    with pytest.raises(DataVersionError, match="data version 999") as caught:
        Ledger(tmp_path)
    assert "newer" in caught.value.remedy


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match=r"ledger\.sqlite.*damaged") as caught:
        Ledger(tmp_path)
    assert "backup" in caught.value.remedy


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used"):
        Ledger(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_root(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be used"):
        Ledger(tmp_path)


def test_one_owner_of_ingestion(tmp_path):
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.own_ingestion()
    first.own_ingestion()
    with pytest.raises(UnavailableError, match="Another process"):
        second.own_ingestion()
    first.close()
    second.own_ingestion()
    second.close()


def test_many_threads_lose_nothing(ledger):
    errors = []

    def work(worker: int) -> None:
        try:
            for i in range(4):
                store(ledger, record(f"{worker}-{i}"), record("shared"))
                ledger.live_versions("default", "c", ["shared"])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ledger.totals("default", "c").documents == 17
    assert ledger.document("default", "c", "shared").version == 16
    assert len(ledger.leftovers()) == 15
    assert ledger.metadata_fields("default", "c") == {"publisher.country": "keyword", "year": "number"}


@pytest.fixture
def of_sqlite(tmp_path):
    """Answers of SQLite's ledger are kept between questions; PostgreSQL's are not."""
    ledger = Ledger(tmp_path)
    ledger.create_collection("default", "c", fingerprint="f", chunking={}, lexical={})
    yield ledger
    ledger.close()


def test_what_others_write_is_seen_at_once(of_sqlite, tmp_path):
    """By this ledger, another connection, or another process."""
    ledger = of_sqlite
    other = Ledger(tmp_path)
    for version in (1, 2):
        for writer in (ledger, other):
            store(writer, record(f"by {id(writer)}", metadata={f"field {version}": 1}))
        names = [f"by {id(ledger)}", f"by {id(other)}", "nobody"]
        for reader in (ledger, other):
            assert reader.live_versions("default", "c", names) == dict.fromkeys(names[:2], (version, 1))
            assert reader.find("default", "c", names[0]).version == version
            assert list(reader.metadata_fields("default", "c")) == [f"field {version}"]
    other.close()
    script = (
        f"import sqlite3; c = sqlite3.connect({str(tmp_path / 'ledger.sqlite')!r}); "
        "c.execute('update documents set live = null'); c.commit()"
    )
    assert ledger.find("default", "c", names[0]) is not None
    subprocess.run([sys.executable, "-c", script], check=True)
    assert ledger.find("default", "c", names[0]) is None
    assert ledger.live_versions("default", "c", names) == {}
    ledger.drop_collection("default", "c")
    with pytest.raises(NotFoundError):
        ledger.collection("default", "c")


def test_unchanged_answers_cost_no_query(of_sqlite, monkeypatch):
    ledger = of_sqlite
    store(ledger, record("a"))
    for _ in range(2):
        ledger.find("default", "c", "a")
        ledger.live_versions("default", "c", ["a", "gone"])
        ledger.collection("default", "c")
        ledger.metadata_fields("default", "c")
        monkeypatch.setattr(ledger.database, "read", None)
