"""Two reports side by side: what differs, by how much, and whether anything got worse."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.report import Report, SetReport, ordered
from pipeline.measure import Interval, difference

# Higher is better in all measures but these, which say nothing of what was found.
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


@dataclass(frozen=True, slots=True)
class Coverage:
    """What two reports share of one set: how many questions, and which measures only one of them has.

    ``lost`` says that the old report has the set and nothing of it can be compared.
    """

    set: str
    old_questions: int
    new_questions: int
    shared_questions: int
    old_measures: tuple[str, ...]
    new_measures: tuple[str, ...]
    lost: bool

    def __str__(self) -> str:
        """What only one report has, in words; nothing if there is none."""
        sides = (
            ("old", self.old_questions, self.old_measures),
            ("new", self.new_questions, self.new_measures),
        )
        parts = []
        for name, count, measures in sides:
            alone = count - self.shared_questions
            having = [f"{alone} of its {count} questions"] if alone else []
            having += [", ".join(measures)] if measures else []
            parts += [f"only the {name} report has {' and '.join(having)}"] if having else []
        parts += ["nothing of it is compared"] if self.lost else []
        return f"{self.set}: {'; '.join(parts)}." if parts else ""


def coverage(old: Report, new: Report) -> list[Coverage]:
    """Every set that either report has."""
    before, after = ({each.name: each for each in report.sets} for report in (old, new))
    return [_covered(name, before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])]


def _covered(name: str, old: SetReport | None, new: SetReport | None) -> Coverage:
    a, b = ({q.id for q in each.questions} if each else set() for each in (old, new))
    had, has = (set(each.measures) if each else set() for each in (old, new))
    telling = (had & has) - _LOWER_IS_BETTER
    both = old is not None and new is not None
    return Coverage(
        name,
        len(a),
        len(b),
        len(a & b),
        tuple(ordered(had - has)) if both else (),
        tuple(ordered(has - had)) if both else (),
        lost=bool(had - _LOWER_IS_BETTER) and not (a & b and telling),
    )


def compare(old: Report, new: Report, *, seed: int = 0) -> list[Difference]:
    """Every measure that both have, on the questions that both asked; :func:`coverage` tells the rest.

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
    if all(d.measure in _LOWER_IS_BETTER for d in found):
        told = " ".join(str(each) for each in coverage(old, new))
        raise InvalidRequestError(
            f"The reports have no measure in common. {told}".strip(),
            remedy="Compare two runs over the same sets and questions, with the same cutoffs and budgets.",
        )
    return found
