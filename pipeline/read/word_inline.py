"""What one paragraph of a Word document shows: its text, its notes, and the boxes anchored in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.read.formula import linear
from pipeline.read.markup import Element, local
from pipeline.read.spacing import BREAK, PAGE, printable
from pipeline.read.word_styles import attribute, child, is_on

SKIPPED = frozenset(
    {"ppr", "rpr", "del", "movefrom", "deltext", "instrtext", "delinstrtext", "fallback", "rt", "sdtpr",
     "sdtendpr", "tblpr", "trpr", "tcpr", "tblgrid", "tblprex"}
)  # fmt: skip
"""Elements that show nothing: properties, deleted text, field codes, duplicates for old readers."""

_SIGNS = {"tab": " ", "ptab": " ", "br": BREAK, "cr": BREAK, "nobreakhyphen": "-"}


@dataclass(slots=True)
class Inline:
    """Collected text with its :mod:`pipeline.read.spacing` marks; ``notes`` are ``(part, id)``."""

    parts: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Everything collected so far."""
        return "".join(self.parts)


def flat_text(raw: str) -> str:
    """Collected text on one line."""
    return " ".join(raw.replace(BREAK, " ").split())


def collect(node: Element, inline: Inline) -> None:
    """Add what ``node`` shows to ``inline``. Paragraphs inside it part by a line break."""
    for element in node:
        name = local(element)
        if name in SKIPPED or (name == "r" and is_on(child(child(element, "rpr"), "vanish"))):
            continue
        handle = _HANDLERS.get(name)
        if handle:
            handle(element, inline)
            continue
        if name == "p" and inline.text.strip():
            inline.parts.append(BREAK)
        collect(element, inline)


def _text(element: Element, inline: Inline) -> None:
    inline.parts.append(printable(element.text or "").replace("\n", " "))


def _sign(element: Element, inline: Inline) -> None:
    if attribute(element, "type") not in ("page", "column"):
        inline.parts.append(_SIGNS[local(element)])


def _note(element: Element, inline: Inline) -> None:
    kind = "footnotes" if local(element) == "footnotereference" else "endnotes"
    inline.notes.append((kind, attribute(element, "id") or ""))


def _drawing(element: Element, inline: Inline) -> None:
    inline.boxes += [box for box in element.iter("{*}txbxContent")]


_HANDLERS: dict[str, Callable[[Element, Inline], None]] = {
    "t": _text,
    **dict.fromkeys(_SIGNS, _sign),
    "lastrenderedpagebreak": lambda element, inline: inline.parts.append(PAGE),
    "footnotereference": _note,
    "endnotereference": _note,
    "omath": lambda element, inline: inline.parts.append(f" {linear(element)} "),
    "drawing": _drawing,
    "pict": _drawing,
}
