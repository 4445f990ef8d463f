"""Which technique brings what: one switch at a time against the defaults, paired by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.compare import Difference, compare
from pipeline.evaluation.page import bars, document, facts
from pipeline.evaluation.report import Report, measured, shown

KINDS = ("nDCG", "span_recall", "token_f1", "citation_precision")
COSTS = ("ingestion_tokens_per_second", "search_ms_p50", "bytes_per_token")

# Each switch with the settings that it changes. Groups are what --only takes.
SWITCHES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "late": {
        "no late chunking": {"embedder.unit_late": 0.0, "embedder.passage_late": 0.0},
        "late chunking alone": {"embedder.unit_late": 1.0, "embedder.passage_late": 1.0},
        "half the overlap of windows": {"embedder.overlap_tokens": 16},
        "twice the overlap of windows": {"embedder.overlap_tokens": 64},
        "windows of 256 tokens": {"embedder.window_tokens": 256},
        "no titles in vectors": {"embedder.unit_title": 0.0, "embedder.passage_title": 0.0},
    },
    "granularity": {
        "passages of 64 tokens": {"chunking.passage_tokens": 64},
        "passages of 256 tokens": {"chunking.passage_tokens": 256},
        "units alone": {"retrieval.unit_weight": 1.0},
        "passages alone": {"retrieval.unit_weight": 0.0},
        "no whole documents": {"retrieval.passage_weight": 1.0},
        "long documents not discounted": {"retrieval.length_discount": 0.0},
        "questions of every length alike": {"retrieval.usual_question_words": 0},
        "neighbours not joined": {"retrieval.max_merged_tokens": 0},
    },
    "analyser": {
        "no stems": {"lexical.stems": False},
        "no pairs of words": {"lexical.bigram_weight": 0.0},
        "words without context": {"lexical.context_weight": 0.0},
        "no titles": {"lexical.titles": False},
        "English stems for all": {"lexical.language": "english"},
    },
    "fusion": {
        "words alone": {"retrieval.dense_weight": 0.0},
        "meaning alone": {"retrieval.dense_weight": 1.0},
        "plain RRF": {"retrieval.fusion": "rrf"},
        "weighted RRF": {"retrieval.fusion": "weighted_rrf"},
        "distribution": {"retrieval.fusion": "distribution"},
        "roll-up: mean of the best 3": {"retrieval.roll_up": "mean_top"},
        "roll-up: log-sum-exp": {"retrieval.roll_up": "log_sum_exp"},
        "scores not regularised": {"retrieval.regularization": 0.0},
    },
    "answer": {
        "order: by score": {"answer.order": "score"},
        "order: edges": {"answer.order": "edges"},
        "order: of the document": {"answer.order": "document"},
        "one quote": {"answer.max_quotes": 1},
        "quotes alone": {"answer.mode": "extractive"},
        "cached passages (APE)": {"contexts.mode": "ape"},
        "decoded plainly (no RAPID)": {"speculation.decoding": "plain"},
    },
}


class Switch(NamedTuple):
    """A technique that is turned off, on or another way by some settings."""

    group: str
    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ablated:
    """One switch: what it changed in quality and in costs (as ratios to the defaults)."""

    group: str
    name: str
    settings: Mapping[str, Any]
    differences: Sequence[Difference]
    costs: Mapping[str, float]


def chosen(groups: Sequence[str], *, answers: bool) -> list[Switch]:
    """Every switch to try.

    Raises InvalidRequestError for an unknown group, and for one of answers where there are none.
    """
    unknown = [group for group in groups if group not in SWITCHES]
    if unknown:
        raise InvalidRequestError(
            f"There is no group of switches {unknown[0]!r}.", remedy=f"Choose from: {', '.join(SWITCHES)}."
        )
    if "answer" in groups and not answers:
        raise InvalidRequestError(
            "The switches of the group 'answer' change nothing but answers, and none are asked for.",
            remedy="Add --answers.",
        )
    wanted = groups or [group for group in SWITCHES if answers or group != "answer"]
    return [Switch(group, name, changes) for group in wanted for name, changes in SWITCHES[group].items()]


def ablated(switch: Switch, defaults: Report, other: Report, *, seed: int) -> Ablated:
    """The switch against the defaults."""
    measures = shown(measured(defaults.sets), KINDS)
    differences = [d for d in compare(defaults, other, seed=seed) if d.measure in measures]
    costs = {}
    for cost in COSTS:
        before = [each.cost[cost] for each in defaults.sets if each.cost.get(cost)]
        after = [each.cost[cost] for each in other.sets if each.cost.get(cost)]
        if before and len(before) == len(after):
            costs[cost] = sum(after) / sum(before)
    return Ablated(*switch, differences, costs)


def markdown(found: Sequence[Ablated], left_out: Mapping[str, str]) -> str:
    """One line a switch and set; costs once a switch. Then what was left out, and why."""
    columns = shown({d.measure for a in found for d in a.differences}, KINDS)
    head = [f"{m}, change" for m in columns]
    lines = ["| switch | set | " + " | ".join(head) + " | costs, ratio |", "|---" * (len(head) + 3) + "|"]
    for each in found:
        costs = ", ".join(f"{name} {value:.2f}" for name, value in each.costs.items())
        for set_name in dict.fromkeys(d.set for d in each.differences):
            by = {d.measure: d for d in each.differences if d.set == set_name}
            cells = [_cell(by[m]) if m in by else "" for m in columns]
            lines.append(f"| {each.name} | {set_name} | " + " | ".join(cells) + f" | {costs} |")
            costs = ""
    if left_out:
        lines += ["", "Left out:", "", *(f"- {name}: {why}" for name, why in left_out.items())]
    return "\n".join(lines)


def page(found: Sequence[Ablated], about: Mapping[str, Any], left_out: Mapping[str, str]) -> str:
    """A plot a set and measure: the change that each switch makes, with its interval."""
    parts = ["<h1>One switch at a time</h1>", facts(about)]
    places = dict.fromkeys((d.set, d.measure) for a in found for d in a.differences)
    for set_name, measure in places:
        rows = [
            (a.name, d.change)
            for a in found
            for d in a.differences
            if (d.set, d.measure) == (set_name, measure)
        ]
        parts.append(f"<h2>{escape(set_name)}: change of {escape(measure)}</h2>" + bars(rows))
    if left_out:
        parts.append("<h2>Left out</h2>" + facts(left_out))
    return document("One switch at a time", "\n".join(parts))


def _cell(difference: Difference) -> str:
    change = difference.change
    mark = "**" if difference.significant else ""
    return f"{mark}{change.mean:+.3f}{mark} [{change.low:+.3f}, {change.high:+.3f}]"
