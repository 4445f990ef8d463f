"""Tables of ``benchmarks.ordering``, in Markdown, with paired 95 % bootstrap intervals over questions."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.report import interval


def report(results: dict[str, Any]) -> None:
    """Print every set that was saved."""
    print(results["model"])
    for name, values in results.items():
        if name == "hotpot":
            supporting(values)
        elif isinstance(values, dict) and "logprob" in values:
            positions(name, values)


def positions(name: str, values: dict[str, Any]) -> None:
    """Log-probability of the reference answer by form and position, and R@1 of the gold passage."""
    at = np.array(values["positions"])
    every = sorted(set(values["positions"]))
    middle = every[len(every) // 2]
    questions = len(set(values["questions"]))
    print(f"\n### {name}: {values['passages']} passages, n = {questions}\n")
    given = np.array(values["logprob"]["given"])
    head = " | ".join(f"at {p}" for p in every)
    print(f"| order | {head} | gain in the middle (95 %) | gap best-worst | EM | R@1 | in the middle |")
    print("|---|" + "---|" * (len(every) + 5))
    gap_before = np.ptp([given[at == p].mean() for p in every])
    for form, logprob in values["logprob"].items():
        lp = np.array(logprob)
        means = [lp[at == p].mean() for p in every]
        mean, low, high = interval((lp - given)[at == middle])
        gap = np.ptp(means)
        match = values.get("match", {}).get(form)
        first = values["first"].get(form)
        print(
            f"| {form} | {' | '.join(f'{m:.2f}' for m in means)} | {mean:+.2f} [{low:+.2f}, {high:+.2f}] | "
            f"{gap:.2f} ({100 * (1 - gap / gap_before):+.0f} % removed) | {_share(match)} | {_share(first)} | "
            f"{_share(None if first is None else np.array(first)[at == middle])} |"
        )
    contrast(values.get("contrast", {}))
    retriever = np.array(values["first"]["retriever"])
    for form in ("sorting fused", "middle fused"):
        mean, low, high = interval(np.array(values["first"][form]) - retriever)
        print(f"\nR@1 of {form} less the retriever's: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")


def contrast(values: dict[str, Any]) -> None:
    """Context-aware decoding by order and strength."""
    for order, by_strength in values.items():
        plain = by_strength["0.0"]
        for strength, found in by_strength.items():
            mean, low, high = interval(np.array(found["logprob"]) - np.array(plain["logprob"]))
            hit, hit_low, hit_high = interval(np.array(found["match"]) - np.array(plain["match"]))
            print(
                f"context-aware decoding, {order}, strength {strength}: log-probability {mean:+.2f} "
                f"[{low:+.2f}, {high:+.2f}], EM {_share(found['match'])} ({hit:+.2f} [{hit_low:+.2f}, {hit_high:+.2f}])"
            )


def supporting(values: dict[str, Any]) -> None:
    """How often both supporting passages are in the last two places."""
    print(f"\n### HotpotQA, n = {len(values['logprob']['retriever'])}\n")
    print("| order | both in the last two places | less the retriever's (95 %) | log-probability | EM |")
    print("|---|---|---|---|---|")
    base = np.array(values["both last"]["retriever"])
    for form, logprob in values["logprob"].items():
        both = values["both last"].get(form)
        gain = "" if both is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*interval(np.array(both) - base))
        match = values["match"].get(form)
        print(f"| {form} | {_share(both)} | {gain} | {np.mean(logprob):.2f} | {_share(match)} |")


def _share(values: Any) -> str:
    return "" if values is None else f"{np.mean(values):.2f}"
