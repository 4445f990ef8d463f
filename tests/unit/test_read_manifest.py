"""Every file of the development data is handled as its line of the manifest says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import (
    DamagedFileError,
    EmptyDocumentError,
    NoTextError,
    PasswordRequiredError,
    UnsupportedFormatError,
)
from pipeline.read import read

FOLDER = Path(os.environ.get("LONGLEAF_DEV_DATA", "")) / "files"
MANIFEST = FOLDER / "manifest.jsonl"
EXPECTED_ERRORS = {
    "empty_text": (NoTextError,),
    "needs_password": (PasswordRequiredError,),
    "error": (DamagedFileError, EmptyDocumentError),
}


def lines() -> list[dict[str, Any]]:
    if "LONGLEAF_DEV_DATA" not in os.environ or not MANIFEST.is_file():
        return []
    return [json.loads(line) for line in MANIFEST.read_text().splitlines()]


@pytest.mark.skipif(not lines(), reason="LONGLEAF_DEV_DATA names no folder with files/manifest.jsonl")
@pytest.mark.parametrize("line", lines(), ids=lambda line: line["file"])
def test_as_the_manifest_says(line: dict[str, Any]) -> None:
    path = FOLDER / line["file"]
    if line["expect"] in EXPECTED_ERRORS:
        with pytest.raises(EXPECTED_ERRORS[line["expect"]]) as caught:
            read(path)
        assert line["file"] in caught.value.message
        assert caught.value.remedy
        return
    try:
        document = read(path)
    except UnsupportedFormatError as error:
        assert line["expect"] == "unsupported" and error.remedy
        return
    text = " ".join(document.text.split())
    for words in line["must_contain"]:
        assert words in text
    assert document.title
    assert "\ufffd" not in document.text
    assert bool(document.warnings) or line["expect"] != "partial"
    _check_spans(document)


def _check_spans(document: Any) -> None:
    length = len(document.text)
    edges = [edge for block in document.blocks for edge in (block.start, block.end)]
    assert edges == sorted(edges) and (not edges or edges[-1] <= length)
    for section in document.sections:
        assert " ".join(document.text[section.start : section.end].split()).startswith(section.title)
    if document.pages:
        assert document.pages[0].start == 0 and document.pages[-1].end == length
        assert all(a.end == b.start for a, b in zip(document.pages, document.pages[1:], strict=False))
