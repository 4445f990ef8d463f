"""States of documents are built one document after the other, whatever goes wrong with one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cached_states import CachedStates
from pipeline.errors import ModelError
from pipeline.records import VersionKey


@pytest.mark.parametrize("error", [ModelError("no model", remedy="none"), RuntimeError("out of memory")])
@pytest.mark.timeout(20)
def test_a_document_that_fails_stops_no_other(tmp_path: Path, error: Exception) -> None:
    built = []

    def build(key: VersionKey) -> None:
        if key.document_id == "a":
            raise error
        built.append(key.document_id)

    states = CachedStates(tmp_path, lambda: None, build)
    states.added([VersionKey("default", "default", name, 1) for name in ("a", "b")])
    states.drain()
    assert built == ["b"]
    states.close()
