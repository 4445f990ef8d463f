"""What Word keeps beside the text: which styles are headings and lists, and the numbers it generates."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.read.markup import Element, local

_HEADING = re.compile(r"heading ([1-9])")
_BODY_OUTLINE = 9
_MAX_INHERITANCE = 20
_LEVEL_MARK = re.compile(r"%([1-9])")
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"),
          (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))  # fmt: skip


def child(element: Element | None, name: str) -> Element | None:
    """The first child of that local name, in lower case, in any namespace."""
    return next((inner for inner in element if local(inner) == name), None) if element is not None else None


def attribute(element: Element | None, name: str = "val") -> str | None:
    """An attribute by its local name; transitional and strict files differ in the namespace."""
    if element is None:
        return None
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), None)


def number(text: str | None) -> int | None:
    """A small whole number, or None where there is none."""
    return (
        int(text)
        if text and len(text) < 9 and text.lstrip("-").isascii() and text.lstrip("-").isdecimal()
        else None
    )


def is_on(toggle: Element | None) -> bool:
    """A toggle property is on when present, unless its value says no."""
    return toggle is not None and attribute(toggle) not in ("0", "false", "off")


@dataclass(frozen=True, slots=True)
class Style:
    """A paragraph style with what it inherits. ``outline`` counts from 0; ``name`` is Word's English
    name in lower case, which is the same in every language of Word."""

    name: str = ""
    outline: int | None = None
    number_id: str | None = None
    indent: int | None = None

    @property
    def level(self) -> int:
        """The heading's level from 1, or 0."""
        if self.outline is not None:
            return self.outline + 1 if self.outline < _BODY_OUTLINE else 0
        named = _HEADING.fullmatch(self.name)
        return int(named[1]) if named else int(self.name in ("title", "toc heading"))


def styles(root: Element | None) -> dict[str, Style]:
    """Every paragraph style by its id."""
    declared = (
        {attribute(e, "styleId") or "": e for e in root if local(e) == "style"} if root is not None else {}
    )
    return {key: _inherited(key, declared) for key in declared}


def _inherited(key: str, declared: dict[str, Element]) -> Style:
    name = outline = number_id = indent = None
    current: str | None = key
    for _ in range(_MAX_INHERITANCE):
        element = declared.get(current or "")
        if element is None:
            break
        properties = child(element, "ppr")
        numbering = child(properties, "numpr")
        own = (attribute(child(element, "name")) or "").lower()
        name = name or own
        outline = _first(outline, number(attribute(child(properties, "outlinelvl"))))
        if outline is None and (heading := _HEADING.fullmatch(own)):
            outline = int(heading[1]) - 1
        number_id = number_id or attribute(child(numbering, "numid"))
        indent = _first(indent, number(attribute(child(numbering, "ilvl"))))
        current = attribute(child(element, "basedon"))
    return Style(name or "", outline, number_id, indent)


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


@dataclass(frozen=True, slots=True)
class _Level:
    start: int
    shape: str
    text: str
    style: str


class Numbering:
    """Generates the numbers Word shows before paragraphs, by counting them in order."""

    def __init__(self, root: Element | None) -> None:
        self._lists: dict[str, str] = {}
        self._overrides: dict[tuple[str, int], int] = {}
        self._levels: dict[str, dict[int, _Level]] = {}
        self._counts: dict[str, dict[int, int]] = defaultdict(dict)
        self._started: set[tuple[str, int]] = set()
        linked: dict[str, str] = {}
        wanted: dict[str, str] = {}
        for element in root if root is not None else ():
            if local(element) == "abstractnum":
                key = attribute(element, "abstractNumId") or ""
                self._levels[key] = dict(_levels(element))
                linked[attribute(child(element, "stylelink")) or ""] = key
                wanted[key] = attribute(child(element, "numstylelink")) or ""
            elif local(element) == "num":
                self._add_list(element)
        for key, style in wanted.items():
            if style and style in linked:
                self._levels[key] = self._levels[linked[style]]

    def _add_list(self, element: Element) -> None:
        key = attribute(element, "numId") or ""
        self._lists[key] = attribute(child(element, "abstractnumid")) or ""
        for override in element:
            start = number(attribute(child(override, "startoverride")))
            if start is not None:
                self._overrides[key, number(attribute(override, "ilvl")) or 0] = start

    def label(self, number_id: str, indent: int | None, style: str) -> str | None:
        """The number of the next paragraph of this list, "" for a bullet, None for no list at all."""
        abstract = self._lists.get(number_id)
        levels = self._levels.get(abstract or "", {})
        if abstract is None or not levels:
            return None
        if indent is None:
            indent = next((i for i, level in levels.items() if style and level.style == style), 0)
        level = levels.get(indent)
        if level is None:
            return None
        counts = self._counts[abstract]
        override = self._overrides.get((number_id, indent))
        if override is not None and (number_id, indent) not in self._started:
            self._started.add((number_id, indent))
            counts[indent] = override
        else:
            counts[indent] = counts.get(indent, level.start - 1) + 1
        for deeper in [i for i in counts if i > indent]:
            del counts[deeper]
        if level.shape in ("bullet", "none"):
            return ""
        return _LEVEL_MARK.sub(lambda mark: self._shown(int(mark[1]) - 1, levels, counts), level.text).strip()

    def _shown(self, indent: int, levels: dict[int, _Level], counts: dict[int, int]) -> str:
        level = levels.get(indent)
        return _shape(counts.get(indent, level.start), level.shape) if level else ""


def _levels(abstract: Element) -> Iterator[tuple[int, _Level]]:
    for element in abstract:
        indent = number(attribute(element, "ilvl"))
        if local(element) == "lvl" and indent is not None:
            start = number(attribute(child(element, "start")))
            yield (
                indent,
                _Level(
                    start=1 if start is None else start,
                    shape=attribute(child(element, "numfmt")) or "decimal",
                    text=attribute(child(element, "lvltext")) or "",
                    style=attribute(child(element, "pstyle")) or "",
                ),
            )


def _shape(value: int, shape: str) -> str:
    if shape in ("upperLetter", "lowerLetter") and value > 0:
        letters = chr(ord("a") + (value - 1) % 26) * ((value - 1) // 26 % 10 + 1)
        return letters.upper() if shape == "upperLetter" else letters
    if shape in ("upperRoman", "lowerRoman") and 0 < value < 4000:
        roman = ""
        for worth, sign in _ROMAN:
            roman += sign * (value // worth)
            value %= worth
        return roman.upper() if shape == "upperRoman" else roman
    return "" if shape in ("bullet", "none") else f"{value:02d}" if shape == "decimalZero" else str(value)
