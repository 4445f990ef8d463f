"""What differs between the two databases of the ledger, and what passes from one data version to the next."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from tallies import tally
from workplace import text, workplace

from pipeline import migrations, writers
from pipeline.database import Database
from pipeline.errors import (
    ConfigurationError,
    ConflictError,
    DataVersionError,
    StorageError,
    UnavailableError,
)
from pipeline.ledger import Ledger
from pipeline.lexical import Analyser, LexicalConfig
from pipeline.lifecycle import VERSION_FIELDS
from pipeline.reconcile import verify
from pipeline.records import VersionRecord
from pipeline.schema import tombstones, versions

GOLDEN = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("version", range(1, migrations.SCHEMA_VERSION + 1))
def test_data_of_every_version_opens(tmp_path, version):
    """The golden folders were written by the Longleaf whose newest version that was."""
    shutil.copytree(GOLDEN / f"version_{version}", tmp_path / "data")
    before = Analyser(LexicalConfig(k1=1.5, language="english", context_weight=0, titles=False))
    with workplace(tmp_path / "data", analyser=before) as place:
        texts = place.texts()
        assert sorted(texts) == ["frost.md", "lease", "whale"]
        assert "again in June" in texts["whale"]
        assert list(place.texts("second")) == ["other"]
        assert place.findable("chile") == ["whale"]
        assert place.ledger.document("default", "default", "lease").metadata == {"year": 1869}
        assert all(found.clean for found in verify(place.ledger, place.indexer))
        assert place.ledger.check() == []
        (changed,) = place.ingest(text("whale", "The whale was never seen again."))
        assert (changed.status, changed.version) == ("replaced", 3)
        with place.ledger.database.read() as connection:
            assert migrations.version_of(connection) == migrations.SCHEMA_VERSION
    tally("20 (data of every version opens)")


def test_older_data_is_left_alone_when_told_so(tmp_path):
    shutil.copy(GOLDEN / "version_1" / "ledger.sqlite", tmp_path)
    before = (tmp_path / "ledger.sqlite").read_bytes()
    with pytest.raises(DataVersionError, match=r"version 1; .* needs 2") as caught:
        Ledger(tmp_path, migrate=False)
    assert "longleaf migrate" in caught.value.remedy
    assert (tmp_path / "ledger.sqlite").read_bytes() == before


def test_a_migration_that_is_interrupted_changes_nothing(tmp_path, monkeypatch):
    shutil.copy(GOLDEN / "version_1" / "ledger.sqlite", tmp_path)

    def fails(connection: sa.Connection) -> None:
        migrations._to_version_2(connection)
        raise UnavailableError("interrupted")

    with monkeypatch.context() as patch:
        patch.setitem(migrations._STEPS, 1, fails)
        with pytest.raises(UnavailableError):
            Ledger(tmp_path)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        assert connection.execute("SELECT version FROM data_version").fetchall() == [(1,)]
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert "tombstones" not in names
    Ledger(tmp_path).close()


def test_newer_data_is_refused_in_postgresql(tmp_path, postgres):
    url = postgres.database()
    ledger = Ledger(tmp_path, url=url)
    with ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE data_version SET version = 999")
    ledger.close()
    with pytest.raises(DataVersionError, match="data version 999"):
        Ledger(tmp_path, url=url)


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite:///x", "no url", ""])
def test_other_urls_are_refused(tmp_path, url):
    with pytest.raises(ConfigurationError, match="kind") as caught:
        Ledger(tmp_path, url=url)
    assert "postgresql://" in caught.value.remedy


def test_a_database_that_is_not_there(tmp_path):
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        Ledger(tmp_path, url="postgresql://someone:secret-word@/x?host=/nowhere")
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://someone:secret@word/secret@localhost:1/x", "%40"),
        ("postgresql://someone:word@secret/secret@localhost:1/x", "%40"),
        ("postgresql://some/one:secret@localhost:1/x", "%2F"),
        ("postgresql://someone:secret?x@secret@localhost:1/x", "%40"),
        ("postgresql://someone:secret/word@localhost:1/x", "does not answer"),
        ("postgresql://someone@localhost:1/x?password=secret&sslpassword=secret", "does not answer"),
        ("postgresql://someone:secret/x", "postgresql://user:password@"),
    ],
)
def test_no_part_of_a_password_is_shown(tmp_path, url, told):
    """Not even where it is written in a way that takes a part of it for a host or a database."""
    with pytest.raises((ConfigurationError, UnavailableError)) as caught:
        Ledger(tmp_path, url=url)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_postgresql_that_forgets_is_refused(tmp_path, postgres):
    url = postgres.database() + "%20-csynchronous_commit%3Doff"
    with pytest.raises(StorageError, match="synchronous_commit = off"):
        Ledger(tmp_path, url=url)


def test_a_restarted_postgresql_is_used_again(tmp_path, postgres):
    ledger = Ledger(tmp_path, url=postgres.database())
    ledger.create_collection("default", "c", fingerprint="f", chunking={}, lexical={})
    postgres.stop()
    with pytest.raises(UnavailableError):
        ledger.collections()
    postgres.start()
    assert [found.name for found in ledger.collections()] == ["c"]
    ledger.close()


def test_writers_of_postgresql_take_turns(tmp_path, postgres):
    """A transaction that begins while another writes sees what that one has written."""
    url = postgres.database()
    first, second = Database(tmp_path / "x", url), Database(tmp_path / "x", url)
    with first.write() as connection:
        connection.execute(tombstones.insert().values(folder="a", version=1))
    began, seen = threading.Event(), []

    def count() -> None:
        began.set()
        with second.write() as connection:
            seen.append(connection.execute(sa.select(tombstones.c.version)).scalar_one())

    other = threading.Thread(target=count)
    with first.write() as connection:
        other.start()
        assert began.wait(10)
        connection.execute(tombstones.update().values(version=2))
    other.join()
    assert seen == [2]
    first.close()
    second.close()


def test_several_processes_write_into_one_postgresql(tmp_path, postgres):
    """Neither takes what the other is writing for a leftover; what a dead one left is removed."""
    url = postgres.database()
    with (
        workplace(tmp_path, url=url) as one,
        workplace(tmp_path, url=url, wrap=lambda ledger, _: (ledger, one.indexer)) as two,
    ):
        one.ingest(text("a", "Otter."))
        two.ingest(text("b", "Heron."))
        record = one.ledger.document("default", "default", "a")
        assert record.version == 1
        with one.ledger.database.read() as connection:
            row = connection.execute(sa.select(versions).where(versions.c.document_id == "a")).one()
        staged = VersionRecord(document_id="c", **{name: getattr(row, name) for name in VERSION_FIELDS})
        (key,) = one.ledger.stage("default", "default", [staged])
        two.ingestor.recover()
        assert one.ledger.leftovers() == [key], "another's work is not touched"
        one.ledger.ownership._ended.set()  # it falls silent
        one.ledger.ownership._renewer.join()
        with two.ledger.database.write() as connection:
            connection.execute(
                writers.writers.update()
                .where(writers.writers.c.id == one.ledger.ownership.id)
                .values(until=0)
            )
        two.ingestor.recover()
        assert two.ledger.leftovers() == []
        with pytest.raises((ConflictError, UnavailableError)):
            one.ledger.publish([key])
        assert sorted(two.texts()) == ["a", "b"]
        assert all(found.clean for found in verify(two.ledger, two.indexer))
