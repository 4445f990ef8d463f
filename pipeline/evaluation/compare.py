"""Two reports side by side: what differs, by how much, and whether anything got worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.report import Report, ordered
from pipeline.measure import Interval, difference

# Higher is better in all measures but these.
_LOWER_IS_BETTER = frozenset({"refused"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of one set. ``change`` is new minus old, paired by question."""

    set: str
    measure: str
    old: float
    new: float
    change: Interval

    @property
    def gain(self) -> float:
        """The change, positive for the better."""
        return -self.change.mean if self.measure in _LOWER_IS_BETTER else self.change.mean

    @property
    def significant(self) -> bool:
        """Whether the interval of the change leaves out 0."""
        return self.change.low > 0 or self.change.high < 0

    def regressed(self, tolerance: float) -> bool:
        """Whether it got worse by more than ``tolerance``, and not by chance."""
        return self.significant and self.gain < -tolerance


def compare(old: Report, new: Report, *, seed: int = 0) -> list[Difference]:
    """Every measure that both have, on the questions that both asked.

    Raises InvalidRequestError when they have none in common.
    """
    before = {each.name: each for each in old.sets}
    found: list[Difference] = []
    for each in new.sets:
        known = before.get(each.name)
        for measure in ordered(each.measures.keys() & known.measures.keys()) if known else ():
            assert known is not None
            a, b = known.values(measure), each.values(measure)
            shared = a.keys() & b.keys()
            if shared:
                was, now = (sum(values[key] for key in shared) / len(shared) for values in (a, b))
                found.append(Difference(each.name, measure, was, now, difference(b, a, seed=seed)))
    if not found:
        raise InvalidRequestError(
            f"The reports have no set in common: {_names(old)} and {_names(new)}.",
            remedy="Compare two runs over the same sets and questions.",
        )
    return found


def _names(report: Report) -> str:
    names: Sequence[str] = [each.name for each in report.sets]
    return ", ".join(names) or "none"
