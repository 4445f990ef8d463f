"""Options that every command takes may stand before the command, too."""

from __future__ import annotations

import pytest

from api.cli import command_first


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (["search", "x", "--data", "d"], ["search", "x", "--data", "d"]),
        (["--data", "d", "--json", "search", "x"], ["search", "x", "--data", "d", "--json"]),
        (["--data=d", "documents", "list"], ["documents", "list", "--data=d"]),
        (["--set", "a=1", "--set", "b=2", "doctor"], ["doctor", "--set", "a=1", "--set", "b=2"]),
        (["--json", "search", "--", "-x"], ["search", "--json", "--", "-x"]),
        (["--help"], ["--help"]),
        (["--data"], ["--data"]),
        ([], []),
    ],
)
def test_common_options_first(given: list[str], understood: list[str]) -> None:
    assert command_first(given) == understood
