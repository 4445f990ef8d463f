"""Formulas on one line of text: MathML and Word's OMML, as one would type them in a mail.

``x^2``, ``a_i``, ``(a+b)/(c)``, ``√(x)``. Meant to be found and read, not typeset again.
"""

from __future__ import annotations

from pipeline.read.markup import Element, flat, local

_FRACTIONS = frozenset({"mfrac", "f"})
_ROOTS = frozenset({"msqrt", "mroot", "rad"})
_SCRIPTS = {
    "msup": "^",
    "ssup": "^",
    "mover": "^",
    "msub": "_",
    "ssub": "_",
    "munder": "_",
    "msubsup": "_^",
    "ssubsup": "_^",
    "munderover": "_^",
}
_SILENT = frozenset({"annotation", "annotation-xml", "rpr", "ctrlpr", "fpr", "radpr", "ssuppr", "ssubpr"})
_TEX = "application/x-tex"


def linear(formula: Element) -> str:
    """The formula as text: its own TeX or alternative text if it has one, else its tree written out."""
    for note in formula.iter():
        if local(note) == "annotation" and note.get("encoding") == _TEX:
            return flat(note)
    return str(formula.get("alttext") or " ".join(_write(formula).split()))


def _write(node: Element) -> str:
    name = local(node)
    if name in _SILENT:
        return ""
    children = [child for child in node if local(child) and local(child) not in _SILENT]
    parts = [_write(child) for child in children]
    if name in _FRACTIONS and len(parts) == 2:
        return f"{_grouped(parts[0])}/{_grouped(parts[1])}"
    if name in _ROOTS and parts:
        # MathML's mroot puts the radicand first, Word's radical puts it last.
        return f"√({parts[0] if name.startswith('m') else parts[-1]})"
    if name in _SCRIPTS and len(parts) == len(_SCRIPTS[name]) + 1:
        marks = zip(_SCRIPTS[name], parts[1:], strict=True)
        return parts[0] + "".join(mark + _grouped(part) for mark, part in marks if part)
    if name in ("mo", "mtext"):
        return f" {flat(node)} " if name == "mtext" or flat(node) in "=<>≤≥≈∈→∼" else flat(node)
    return "".join([" ".join((node.text or "").split()), *parts])


def _grouped(part: str) -> str:
    part = part.strip()
    return part if len(part) == 1 or part.isalnum() else f"({part})"
