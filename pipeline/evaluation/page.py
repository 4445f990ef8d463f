"""A report as one HTML page: plots with intervals (as inline SVG) over the tables. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from pipeline.evaluation.report import Report, in_words, measured, ordered, shown
from pipeline.evaluation.runner import PLACES
from pipeline.measure import Interval

_WIDTH, _BAR, _LEFT, _RIGHT = 640, 22, 200, 170
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0 }
td, th { border: 1px solid #ccc; padding: .25rem .5rem; text-align: left }
svg text { font: 12px system-ui, sans-serif; fill: #222 }
.bar { fill: #6a9fb5 } .whisker { stroke: #222; stroke-width: 1.5 } .axis { stroke: #bbb }
"""
_PLOTTED = ("nDCG", "span_recall", "answered", "abstained", "token_f1", "supported", "citation_precision")


def page(report: Report, title: str = "Evaluation") -> str:
    """The whole page."""
    parts = [f"<h1>{escape(title)}</h1>", facts(report.about)]
    for measure in shown(measured(report.sets), _PLOTTED):
        rows = [(each.name, each.measures[measure]) for each in report.sets if measure in each.measures]
        if rows:
            parts.append(f"<h2>{escape(measure)}</h2>" + bars(rows))
    for each in report.sets:
        for measure in shown(each.measures, ("span_recall", "nDCG")):
            places = each.by.get("position", {})
            rows = [(place, m[measure]) for place, m in _in_reading_order(places) if measure in m]
            if rows:
                heading = f"{each.name}: {measure} by position of the evidence"
                parts.append(f"<h3>{escape(heading)}</h3>" + bars(rows))
                break
    parts += [f"<h2>{escape(each.name)}</h2>" + _measures(each.measures) for each in report.sets]
    return document(title, "\n".join(parts))


def document(title: str, body: str) -> str:
    """A page around ``body``, which is HTML already."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def facts(about: Mapping[str, object]) -> str:
    """What is known of a run as a table."""
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(in_words(v))}</td></tr>" for k, v in about.items())
    return f"<table>{rows}</table>"


def bars(rows: Sequence[tuple[str, Interval]]) -> str:
    """One bar a row with its interval as a whisker; the axis holds 0 and all values."""
    low = min(0.0, *(i.low for _, i in rows))
    high = max(i.high for _, i in rows)
    high = 1.0 if low == 0 and high <= 1 else high or 1.0
    room = _WIDTH - _LEFT - _RIGHT

    def x(value: float) -> float:
        return round(_LEFT + room * (value - low) / (high - low), 1)

    height = _BAR * len(rows) + 8
    drawn = [f'<line class="axis" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{height}"/>']
    for number, (name, found) in enumerate(rows):
        y = 4 + number * _BAR
        left, right = sorted((x(0), x(found.mean)))
        middle = y + _BAR / 2 - 2
        drawn.append(
            f'<text x="0" y="{middle + 4}">{escape(name[:30])}</text>'
            f'<rect class="bar" x="{left}" y="{y}" width="{round(right - left, 1)}" height="{_BAR - 6}"/>'
            f'<line class="whisker" x1="{x(found.low)}" x2="{x(found.high)}" y1="{middle}" y2="{middle}"/>'
            f'<text x="{_WIDTH - _RIGHT + 8}" y="{middle + 4}">{escape(str(found))}</text>'
        )
    return f'<svg width="{_WIDTH}" height="{height}" role="img">{"".join(drawn)}</svg>'


def _measures(measures: Mapping[str, Interval]) -> str:
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(measures[name]))}</td></tr>"
        for name in ordered(measures)
    )
    return f"<table>{rows}</table>"


def _in_reading_order(
    places: Mapping[str, Mapping[str, Interval]],
) -> list[tuple[str, Mapping[str, Interval]]]:
    return [(place, places[place]) for place in PLACES if place in places]
