"""Minute quotas hold for all processes of one ledger together, in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from postgres import Cluster
from small_library import client_of
from sqlalchemy.exc import OperationalError

from api.leases import Leases
from api.quotas import Quotas
from api.sections import Quota, QuotaSettings, Settings
from pipeline import levels as module
from pipeline.ledger import Ledger
from pipeline.levels import FILE, Levels

CHILD = """
import asyncio, json, sys
from pathlib import Path
from api.quotas import Quotas
from api.sections import QuotaSettings
from pipeline.errors import RateLimitedError
from pipeline import levels
from pipeline.ledger import Ledger

levels.WAIT_SECONDS = 60.0  # machines that run tests may be slow
root, url, requests, tokens, each = json.loads(sys.argv[1])
ledger = Ledger(Path(root), url=url)
quotas = Quotas(QuotaSettings(requests_per_minute=requests, tokens_per_minute=tokens))
quotas.share(ledger)

async def count():
    asked = served = 0
    for _ in range(requests * 2):
        try:
            await quotas.request("acme", "key")
            asked += 1
        except RateLimitedError:
            pass
        try:
            await quotas.ask_tokens("acme")
            quotas.spend_tokens("acme", each)
            served += 1
        except RateLimitedError:
            pass
        await asyncio.sleep(0.002)
    return asked, served

print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(asyncio.run(count())), flush=True)
quotas.close()
ledger.close()
"""
REQUESTS, TOKENS, EACH = 60, 1_200, 10
SECONDS_OF_FILLING = 60.0


def together(root: Path, url: str | None) -> tuple[int, int, float]:
    """Requests and askings for tokens that two processes let through at once, and how long it took."""
    told = json.dumps([str(root), url, REQUESTS, TOKENS, EACH])
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, told], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    began = time.monotonic()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [json.loads(child.communicate(timeout=120)[0]) for child in children]
    assert all(child.returncode == 0 for child in children)
    asked, served = (sum(numbers) for numbers in zip(*said, strict=True))
    return asked, served, time.monotonic() - began


@pytest.mark.parametrize("served_by", ["sqlite", "postgresql"])
def test_two_processes_share_a_minute(tmp_path: Path, served_by: str, request: pytest.FixtureRequest) -> None:
    cluster: Cluster | None = request.getfixturevalue("postgres") if served_by == "postgresql" else None
    asked, served, seconds = together(tmp_path, cluster.database() if cluster else None)
    filled = seconds / SECONDS_OF_FILLING
    assert REQUESTS * 0.8 <= asked <= REQUESTS * (1 + filled) + 1
    # Tokens are spent after they were asked for: each process may have one more lease under way.
    assert served * EACH >= TOKENS * 0.8
    assert served * EACH <= TOKENS * (1 + filled) + 2 * (TOKENS / 20 + EACH)
    assert (tmp_path / FILE).exists() == (served_by == "sqlite")


def test_two_services_share_a_minute(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "now", lambda _: 1_000.0)
    limited = settings.model_copy(update={"quotas": QuotaSettings(requests_per_minute=5)})
    with client_of(limited) as first:
        answers = [first.get("/v1/collections").status_code for _ in range(3)]
    with client_of(limited) as second:
        answers += [second.get("/v1/collections").status_code for _ in range(4)]
    assert answers == [200] * 5 + [429] * 2


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (tmp_path / FILE).write_bytes(b"no database " * 400)
    levels = Levels(ledger.database, tmp_path)
    assert levels.take("a", back=0.0, least=1.0, most=3.0, per_minute=60) == (3.0, 0.0)
    levels.close()
    ledger.close()


def test_a_locked_file_is_left_to_those_who_count_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    ledger = Ledger(tmp_path)
    holder = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    before = (tmp_path / FILE).stat().st_ino
    levels = Levels(ledger.database, tmp_path)
    with pytest.raises(OperationalError, match="locked"):
        levels.take("requests acme", back=0, least=1, most=5, per_minute=10)
    holder.execute("ROLLBACK")
    holder.close()
    assert (tmp_path / FILE).stat().st_ino == before
    assert levels.take("requests acme", back=0, least=1, most=5, per_minute=10) == (5.0, 0.0)
    levels.close()
    ledger.close()


def test_buckets_fill_up_and_debts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1_000.0
    monkeypatch.setattr(module, "now", lambda _: at)
    ledger = Ledger(tmp_path)
    levels = Levels(ledger.database, tmp_path)

    def take(back: float = 0.0, most: float = 60.0) -> tuple[float, float]:
        return levels.take("a", back=back, least=1.0, most=most, per_minute=60)

    assert take() == (60.0, 0.0)
    assert take() == (0.0, pytest.approx(1.0))
    at += 10
    assert take(most=4.0) == (4.0, 0.0)
    assert take(back=-36.0) == (0.0, pytest.approx(31.0))
    at += 31
    assert take() == (pytest.approx(1.0), 0.0)
    at += 600
    assert take(back=5.0) == (60.0, 0.0), "never more than a minute's worth"
    levels.close()
    ledger.close()


async def test_a_process_counts_alone_while_the_database_does_not_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(tmp_path / "data")
    quotas = Quotas(QuotaSettings(tenants={"acme": Quota(requests_per_minute=2)}))
    quotas.share(ledger)
    leases = quotas._leases
    assert leases is not None
    leases._levels._file = tmp_path / "nowhere" / FILE
    await quotas.request("acme", "key")
    await quotas.request("acme", "key")
    with pytest.raises(Exception, match="2 requests a minute"):
        await quotas.request("acme", "key")
    assert [r.message for r in caplog.records if "alone" in r.message] == [
        "minute quotas are counted by this process alone: OperationalError"
    ]
    quotas.close()
    ledger.close()


async def test_a_lease_is_asked_for_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "now", lambda _: 1_000.0)
    ledger = Ledger(tmp_path)

    class Counting(Levels):
        asked = 0

        def take(self, *args: object, **kwargs: object) -> tuple[float, float]:
            Counting.asked += 1
            return super().take(*args, **kwargs)  # type: ignore[arg-type]

    leases = Leases(Counting(ledger.database, tmp_path), lambda: 0.0)
    waits = await asyncio.gather(*(leases.take("a", 1.0, 100) for _ in range(100)))
    assert waits == [0.0] * 100
    assert Counting.asked == 20
    assert (await leases.take("a", 1.0, 100) or 0.0) > 0
    assert leases.spend("a", 50.0, 100)
    leases.close()
    assert Counting.asked == 22
    again = Leases(Counting(ledger.database, tmp_path), lambda: 0.0)
    assert (await again.take("a", 1.0, 100) or 0.0) > 25.0, "the debt is known to others"
    again.close()
    ledger.close()
