"""Promise 1: whatever is killed wherever, acknowledged documents are there, whole, and once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
from killed_child import CONTENT
from tallies import tally
from workplace import text, workplace

from pipeline.layers import LAYERS, index_name
from pipeline.reconcile import verify

CHILD = Path(__file__).with_name("killed_child.py")
FULL = os.environ.get("LONGLEAF_RELIABILITY") == "full"
STEPS = 128
AT_STEP = range(1, STEPS + 1) if FULL else (9, 23, 44, 58, 81, 94, 120)

AFTER_FIRST = dict(CONTENT["first"])
AFTER_SECOND = {**AFTER_FIRST, **dict(CONTENT["second"])}
AFTER_DELETE = {name: content for name, content in AFTER_SECOND.items() if name != "b"}


def started(root: Path, indexer: str, kill_at: int = 0) -> subprocess.Popen[str]:
    """The child, about to begin."""
    process = subprocess.Popen(
        [sys.executable, str(CHILD), str(root), indexer, str(kill_at)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def run(root: Path, indexer: str, kill_at: int = 0, kill_after_seconds: float | None = None) -> list[str]:
    process = started(root, indexer, kill_at)
    if kill_after_seconds is not None:
        time.sleep(kill_after_seconds)
        process.kill()
    output = process.communicate(timeout=900)[0]
    assert process.returncode in (0, -signal.SIGKILL), output
    return output.splitlines()


def states(acknowledged: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """What must be there, and what is there once the work under way when it was killed is done."""
    stored = [line.split()[1:3] for line in acknowledged if line.startswith("stored")]
    if "deleted b" in acknowledged:
        return AFTER_DELETE, AFTER_DELETE
    if len(stored) == 5:
        return AFTER_SECOND, AFTER_DELETE
    if len(stored) >= 3:
        now = {**AFTER_FIRST, **{n: AFTER_SECOND[n] for n, _ in stored[3:]}}
        return now, AFTER_SECOND
    return {name: AFTER_FIRST[name] for name, _ in stored}, AFTER_FIRST


def check(root: Path, indexer: str, acknowledged: list[str]) -> None:
    now, then = states(acknowledged)
    with workplace(root, indexer=indexer) as place:
        for moment in ("as it was left", "recovered"):
            made = [record.name for record in place.ledger.collections()]
            found = place.texts() if "default" in made else {}
            for name in {*now, *then, *found}:
                assert found.get(name) in (now.get(name), then.get(name)), (moment, name, acknowledged)
            if moment == "as it was left":
                place.ingestor.recover()
        assert place.ledger.leftovers() == []
        assert place.ledger.check() == []
        assert all(each.clean for each in verify(place.ledger, place.indexer))
        others = len(place.texts("other")) if "other" in made else 0
        assert len(place.stored_folders()) == len(found) + others
        assert not list(root.glob("spool/*"))
        if "other x" in acknowledged and "dropped other" in acknowledged:
            assert "other" not in made
        known = {index_name("default", name, layer) for name in made for layer in LAYERS}
        assert set(place.indexer.names()) <= known
        place.ingest(*(text(name, content) for batch in CONTENT.values() for name, content in batch))
        assert place.texts() == AFTER_SECOND
        assert place.points()["documents"] == len(AFTER_SECOND)
        assert place.findable("heron") == ["a", "d"]
    tally("1 (acknowledged is durable)")


@pytest.mark.parametrize("indexer", ["exact", "qdrant_edge"])
def test_nothing_is_killed(tmp_path, indexer):
    acknowledged = run(tmp_path, indexer)
    assert acknowledged[-1] == f"steps {STEPS}", "the steps of this test no longer cover the whole run"
    check(tmp_path, indexer, acknowledged)


@pytest.mark.parametrize("step", AT_STEP)
def test_killed_at_a_step(tmp_path, step):
    acknowledged = run(tmp_path, "exact", kill_at=step)
    assert not any(line.startswith("steps") for line in acknowledged)
    check(tmp_path, "exact", acknowledged)


@pytest.mark.parametrize("step", AT_STEP if FULL else [45, 71])
def test_killed_at_a_step_with_the_embedded_engine(tmp_path, step):
    check(tmp_path, "qdrant_edge", run(tmp_path, "qdrant_edge", kill_at=step))


@cache
def whole_run_seconds(indexer: str) -> float:
    """How long it takes when nobody kills it, so that a random moment is one of its work."""
    with tempfile.TemporaryDirectory() as folder:
        process, began = started(Path(folder), indexer), time.monotonic()
        process.communicate()
        return time.monotonic() - began


@pytest.mark.parametrize("case", range(200 if FULL else 1))
def test_killed_at_random(tmp_path, case):
    indexer = ("exact", "qdrant_edge")[case % 2]
    seconds = random.Random(case).uniform(0, whole_run_seconds(indexer))
    check(tmp_path, indexer, run(tmp_path, indexer, kill_after_seconds=seconds))
