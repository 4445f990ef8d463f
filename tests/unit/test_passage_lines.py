"""How hits look to a person: where they stand, and what repeats them."""

from __future__ import annotations

from api.commands.calibrating import _who
from api.commands.passages import SHOWN_PLACES, hit_lines
from pipeline.lm.signals import Signal
from pipeline.types import Hit, Location


def test_what_repeats_a_hit_is_named_with_its_place() -> None:
    titles = ["", *["Lease"] * (SHOWN_PLACES + 1)]
    also = tuple(Location(f"lease_{n}.pdf", 1, title, 10, 90, 0.4, 3, 3) for n, title in enumerate(titles))
    hit = Hit("a:0", "a.pdf", 1, "Lease", "Notice is ninety days.", 0, 22, 0.5, also=also)
    shown = hit_lines(1, hit, full=True).plain
    assert "also in lease_0.pdf, page 3, characters 10-90" in shown
    assert "also in lease_1.pdf (Lease), page 3" in shown
    assert shown.count("also in") == SHOWN_PLACES
    assert "and in 2 more" in shown
    assert "also" not in hit_lines(1, Hit("b:0", "b", 1, "", "Text.", 0, 5, 0.1), full=True).plain


def test_many_heads_are_told_in_a_line() -> None:
    heads = tuple((layer, head) for layer in range(4) for head in range(3))
    assert _who(Signal()) == "layers all"
    assert _who(Signal(layers=(1, 3))) == "layers (1, 3)"
    assert _who(Signal(heads=heads[:2])) == "heads (0, 0), (0, 1)"
    assert _who(Signal(heads=heads, weights=(1.0,) * 12)).endswith("and 2 more by weights")
