"""How a search gathers evidence and weighs it, as settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from pipeline.errors import ConfigurationError
from pipeline.fuse import Fusion, Join, Method, RollUp
from pipeline.regularize import Regularization
from pipeline.types import ANSWER_TOP_K

# An index gives at most 10,000 matches, and twice as many as hits are asked for are looked at.
_MOST = {
    "unit_candidates": 10_000,
    "passage_candidates": 10_000,
    "document_candidates": 10_000,
    "regularization_candidates": 200,
    "max_top_k": 5_000,
    "max_query_sentences": 64,
    "max_query_chars": 1_000_000,
    "rrf_k": 10_000,
    "roll_up_top": 1_000,
}


@dataclass(frozen=True, slots=True)
class RetrievalConfig:
    """How evidence is gathered and weighed; the defaults measured best across development sets."""

    dense_weight: float = 0.65
    """Share of meaning against words, 0 to 1."""
    unit_weight: float = 0.5
    """Share of a passage's best small unit against the passage's own vector, 0 to 1."""
    unit_join: Join = "mean"
    """How the two become one score under `convex`: `mean` by their shares, or `soft_max`, which leans to the
    larger (see docs/embedding.md: searching by meaning alone)."""
    unit_join_temperature: float = 0.1
    """Softness of `soft_max`, 0.001 to 10; the larger, the closer to the mean."""
    passage_weight: float = 0.5
    """Share of a passage's own evidence against that of its whole document, 0 to 1, for a question of
    `usual_question_words` words; of longer questions the document has more, of shorter ones less."""
    usual_question_words: int = 20
    """See `passage_weight`; 0 weighs questions of every length alike."""
    fusion: Method = "convex"
    """How evidence becomes one score: `convex`, `weighted_rrf`, `rrf` or `distribution`."""
    rrf_k: int = 60
    """Reciprocal rank fusion: what is added to a rank, 1 or more."""
    roll_up: RollUp = "max"
    """Units to passages and both to documents: `max`, `mean_top` or `log_sum_exp`."""
    roll_up_top: int = 3
    """How many of the best `mean_top` takes, 1 or more."""
    roll_up_temperature: float = 0.05
    """Softness of `log_sum_exp`, above 0; towards 0 it is the maximum."""
    unit_candidates: int = 150
    """Units looked at for each sentence of the question."""
    passage_candidates: int = 150
    """Passages looked at for each sentence, and for the words of the question."""
    document_candidates: int = 100
    """Documents looked at for the words of the question."""
    length_discount: float = 0.03
    """What cosines of a whole document lose under `convex` times the natural logarithm of how many passages
    it has, 0 to 1: the best of many is high by chance. Measured with the default embedder; try 0 where all
    cosines lie in a narrow band."""
    regularization: float = 0.6
    """How far the score of a passage rises towards those of passages of other documents that resemble it
    (score regularisation), 0 (not at all) to 1; divided by the square root of how many passages its
    document has."""
    regularization_candidates: int = 50
    """Among how many of the best passages scores are regularised, 1 to 200; each costs a vector to fetch."""
    max_query_sentences: int = 16
    """A longer question is searched in this many pieces of several sentences."""
    max_query_chars: int = 8_000
    """Longest question."""
    max_top_k: int = 1_000
    """Most hits of one search, at least the 20 that answers look at unless told otherwise."""
    max_merged_tokens: int = 512
    """Neighbouring passages that rank next to each other are joined up to this length; 0 joins none."""

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a value out of range."""
        for name in ("dense_weight", "unit_weight", "passage_weight", "length_discount", "regularization"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(
                    f"retrieval.{name} is {getattr(self, name)}.", remedy="Set it between 0 and 1."
                )
        for name, known in (
            ("fusion", get_args(Method)),
            ("roll_up", get_args(RollUp)),
            ("unit_join", get_args(Join)),
        ):
            if getattr(self, name) not in known:
                raise ConfigurationError(
                    f"There is no retrieval.{name} {getattr(self, name)!r}.",
                    remedy=f"Choose from: {', '.join(known)}.",
                )
        if not 0.001 <= self.unit_join_temperature <= 10:
            raise ConfigurationError(
                f"retrieval.unit_join_temperature is {self.unit_join_temperature}.",
                remedy="Set it between 0.001 and 10.",
            )
        if not 0 < self.roll_up_temperature <= 10:
            raise ConfigurationError(
                f"retrieval.roll_up_temperature is {self.roll_up_temperature}.",
                remedy="Set it above 0 and up to 10.",
            )
        if not 0 <= self.usual_question_words <= 10_000:
            raise ConfigurationError(
                f"retrieval.usual_question_words is {self.usual_question_words}.",
                remedy="Set it between 0 and 10,000.",
            )
        for name, most in _MOST.items():
            least = ANSWER_TOP_K if name == "max_top_k" else 1  # what answers ask for unless told otherwise
            if not least <= getattr(self, name) <= most:
                raise ConfigurationError(
                    f"retrieval.{name} is {getattr(self, name)}.",
                    remedy=f"Set it between {least} and {most:,}.",
                )

    def as_fusion(self) -> Fusion:
        """The part of it that :mod:`pipeline.fuse` takes."""
        return Fusion(
            dense=self.dense_weight,
            unit=self.unit_weight,
            passage=self.passage_weight,
            method=self.fusion,
            rrf_k=self.rrf_k,
            roll_up=self.roll_up,
            roll_up_top=self.roll_up_top,
            roll_up_temperature=self.roll_up_temperature,
            usual_words=self.usual_question_words,
            join=self.unit_join,
            join_temperature=self.unit_join_temperature,
            length_discount=self.length_discount,
        )

    def as_regularization(self) -> Regularization:
        """The part of it that :mod:`pipeline.regularize` takes."""
        return Regularization(self.regularization, self.regularization_candidates)
