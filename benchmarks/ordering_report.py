"""Tables of ``benchmarks.ordering``, in Markdown, with paired 95 % bootstrap intervals over questions."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.report import interval


def report(results: dict[str, Any]) -> None:
    """Print every set that was saved."""
    print(results["model"])
    for name, questions in results.items():
        if name == "hotpot":
            supporting(questions)
        elif isinstance(questions, list) and questions:
            positions(name, questions)


def positions(name: str, questions: list[dict[str, Any]]) -> None:
    """Log-probability of the reference answer by form and position, and R@1 of the gold passage."""
    places = [str(place) for place in questions[0]["places"]]
    middle = places[len(places) // 2]
    print(f"\n### {name}: {questions[0]['passages']} passages, n = {len(questions)}\n")
    given = np.array([[q["logprob"]["given"][place] for place in places] for q in questions])
    means = given.mean(0)
    print("| given at | " + " | ".join(places) + " | best less worst (95 %) |")
    print("|---|" + "---|" * (len(places) + 1))
    gap = interval((given[:, means.argmax()] - given[:, means.argmin()]).tolist())
    print(f"| log-probability | {' | '.join(f'{m:.2f}' for m in means)} | {_shown(gap)} |")
    greedy = [[q["greedy"]["given"][place] for q in questions] for place in places]
    print(f"| greedy answer right | {' | '.join(f'{np.mean(g):.2f}' for g in greedy)} | |\n")
    print("| order | n | log-probability | less given in the middle (95 %) | greedy right |")
    print("|---|---|---|---|---|")
    for form in _forms(questions, "logprob"):
        if form == "given":
            continue
        rows = [(q["logprob"][form], q["greedy"][form], q) for q in questions if form in q["logprob"]]
        values = [_value(logprob, middle) for logprob, _, _ in rows]
        base = [q["logprob"]["given"][middle] for _, _, q in rows]
        right = np.mean([_value(greedy, middle) for _, greedy, _ in rows])
        gain = interval((np.array(values) - base).tolist())
        print(f"| {form} | {len(rows)} | {np.mean(values):.2f} | {_shown(gain)} | {right:.2f} |")
    print("\n| R@1 of the gold passage | n | " + " | ".join(f"at {place}" for place in places) + " |")
    print("|---|---|" + "---|" * len(places))
    for form in _forms(questions, "first"):
        rows_first = [q["first"][form] for q in questions if form in q["first"]]
        shares = [[row[place] for row in rows_first if place in row] for place in places]
        shown = " | ".join(f"{np.mean(share):.2f}" if share else "" for share in shares)
        print(f"| {form} | {len(rows_first)} | {shown} |")
    for form in ("sorting fused", "middle fused"):
        less = [q["first"][form][p] - q["first"]["retriever"][p] for q in questions for p in places]
        print(f"\nR@1 of {form} less the retriever's: {_shown(interval(less))}")


def supporting(questions: list[dict[str, Any]]) -> None:
    """How often both supporting passages are in the last two places."""
    print(f"\n### HotpotQA, n = {len(questions)}\n")
    print("| order | both in the last two places | less the retriever's (95 %) |")
    print("|---|---|---|")
    for form in _forms(questions, "both last"):
        both = [q["both last"][form] for q in questions]
        gain = interval([q["both last"][form] - q["both last"]["retriever"] for q in questions])
        print(f"| {form} | {np.mean(both):.2f} | {_shown(gain)} |")
    gain = interval([q["logprob"]["middle fused"] - q["logprob"]["retriever"] for q in questions])
    print(f"\nlog-probability, middle fused less retriever: {_shown(gain)}")


def _forms(questions: list[dict[str, Any]], kind: str) -> list[str]:
    return list(dict.fromkeys(form for q in questions for form in q[kind]))


def _value(values: dict[str, Any], middle: str) -> float:
    return float(values["any"] if "any" in values else values[middle])


def _shown(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
