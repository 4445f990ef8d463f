"""Ingests, replaces and deletes, saying what is done; kills itself at a numbered step if told to.

``python killed_child.py ROOT INDEXER KILL_AT`` (0: never). Steps are the calls that change ledger, files
or index, counted before and after each. The last line without a kill is the number of steps.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from workplace import text, workplace  # noqa: E402 - the line above makes it importable

CHANGES = {
    "create_collection",
    "stage",
    "publish",
    "retire",
    "forget",
    "create",
    "upsert",
    "flush",
    "write",
    "remove",
    "optimize",
    "drop",
    "forget_collection",
    "drop_collection",
}
CONTENT = {
    "first": [("a", "Otter one. " * 30), ("b", "Otter two. " * 20), ("c", "Otter three.")],
    "second": [("a", "Heron four. " * 30), ("d", "Heron five.")],
}


class Steps:
    def __init__(self, kill_at: int) -> None:
        self.count, self._kill_at = 0, kill_at

    def step(self) -> None:
        self.count += 1
        if self.count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Stepping:
    """Passes everything on, counting steps."""

    def __init__(self, inner: Any, steps: Steps) -> None:
        self._inner, self._steps = inner, steps

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._inner, name)
        if name == "originals":
            return Stepping(member, self._steps)
        if name not in CHANGES and name != "delete":
            return member

        def call(*args: Any, **kwargs: Any) -> Any:
            self._steps.step()
            result = member(*args, **kwargs)
            self._steps.step()
            return result

        return call


def main(root: str, indexer: str, kill_at: int) -> None:
    print("ready", flush=True)
    steps = Steps(kill_at)
    with workplace(
        Path(root),
        indexer=indexer,
        wrap=lambda ledger, index: (Stepping(ledger, steps), Stepping(index, steps)),
    ) as place:
        for batch in CONTENT.values():
            sources = [text(name, content) for name, content in batch]
            for result in place.ingestor.ingest(sources):
                print("stored", result.document_id, result.version, result.status, flush=True)
        place.ingestor.delete("default", "default", "b")
        print("deleted b", flush=True)
        place.ingest(text("x", "Newt."), collection="other")
        print("other x", flush=True)
        place.ingestor.drop("default", "other")
        print("dropped other", flush=True)
    print("steps", steps.count, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
