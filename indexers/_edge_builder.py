"""The process that optimises a copy of a shard: ``python -m indexers._edge_builder FD FOLDER``.

It dies with its parent, and gives way to whoever else wants a processor: searches are answered meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys

from indexers._edge_worker import described, die_with_parent, translated
from pipeline.errors import IndexingError

_NICE = 10


def main(lifeline_fd: int, path: str) -> None:
    """Optimise the shard and print what came of it as JSON."""
    die_with_parent(lifeline_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    import qdrant_edge as qdrant

    try:
        shard = qdrant.EdgeShard.load(path)
        changed = shard.optimize()
        shard.flush()
        shard.close()
        answer = {"changed": changed}
    except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
        answer = described(translated(error, IndexingError))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
