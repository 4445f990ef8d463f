"""Which titles say something, and which the text says itself."""

from __future__ import annotations

import pytest

from pipeline import titles


@pytest.mark.parametrize(
    "title",
    [
        "Ed Wood (film)",
        "Non-Disclosure Agreement",
        "Best Buy 10k 2023",
        "劳动合同法",
        "Война и мир",
        "ข้อตกลง",
        "U.S. policy",
        "법 개정",
    ],
)
def test_words_tell(title: str) -> None:
    assert titles.tells(title)


@pytest.mark.parametrize(
    "title",
    [
        "",
        "  ",
        "Bdb001",
        "state_of_the_union",
        "09-24-2019-04-25.pdf",
        "scan (2)",
        "2020-Q3 report",
        "LICENSE",
    ],
)
def test_names_of_files_and_records_do_not(title: str) -> None:
    assert not titles.tells(title)


def test_what_the_text_begins_with_is_told() -> None:
    assert titles.untold("Lease of  flats", "# LEASE OF FLATS\n\nThe tenant") == ""
    assert titles.untold("Lease of flats", "The tenant") == "Lease of flats"
    assert titles.untold("Lease", "x " * 600 + "Lease") == "Lease"
    assert titles.telling("Lease of flats", "The tenant") == "Lease of flats"
    assert titles.telling("Lease of flats", "Lease of flats. The tenant") == ""
    assert titles.telling("lease.pdf", "The tenant") == ""
