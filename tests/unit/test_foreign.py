"""Indexes in the folder of an engine that are not of a collection."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.foreign import all_foreign, foreign_indexes


def index(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(content)
    return folder


def test_what_has_no_readable_name_may_be_anybodys(tmp_path: Path) -> None:
    """So that nothing of a program's own is removed with it."""
    index(tmp_path / "a", json.dumps({"name": "default/default/passages"}))
    assert foreign_indexes(tmp_path) == ()
    damaged = [index(tmp_path / "b", "{"), index(tmp_path / "c", "[]"), index(tmp_path / "d", "{}")]
    assert foreign_indexes(tmp_path) == tuple(map(str, damaged))
    assert not all_foreign(tmp_path)
