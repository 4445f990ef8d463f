"""How a question is to be answered: what a request may ask for, on every route that answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pipeline.answer import AnswerOptions, Mode
from pipeline.compose import MOST_STRENGTH
from pipeline.lm.context_options import MOST_ATTENDED, ContextMode, ContextOptions
from pipeline.lm.request import MOST_DRAFT_TOKENS, Decoding, DrafterName
from pipeline.ordering import Order, Reweigh


class HowToAnswer(BaseModel):
    """What is left out is as configured."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Mode | None = Field(default=None, description="Overrides the configured mode.")
    order: Order | None = Field(default=None, description="Order of passages in the prompt.")
    reweigh: Reweigh | None = Field(
        default=None,
        description="How attention to passages is moved while the model writes: by a `bias` on each, "
        "or shared by `score`s or what the model looks at; `auto` is what its calibration found.",
    )
    compress_tokens: int | None = Field(
        default=None, ge=1, description="Shorten the prompt's passages to their best sentences within these."
    )
    context_strength: float | None = Field(
        default=None, ge=0, le=MOST_STRENGTH, description="Context-aware decoding; 0 is off."
    )
    context: ContextMode | None = Field(
        default=None,
        description="How the model reads passages: in order, anew (sequential) or with what it read before "
        "(prefix, lossless); from cached states in parallel (ape); or the fastest that is as good (auto).",
    )
    context_temperature: float | None = Field(
        default=None, gt=0, le=10, description="Attention temperature over cached passages."
    )
    context_scale: float | None = Field(
        default=None, gt=0, le=10, description="Scale of cached passages' share of attention."
    )
    attended: int | None = Field(
        default=None, ge=1, le=MOST_ATTENDED, description="Most cached passages attended of those found."
    )
    long_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Tokens that the model reads around the passages; a drafter reads the passages alone.",
    )
    decoding: Decoding | None = Field(
        default=None, description="Whether to draft: always, never, or while it is predicted to pay (auto)."
    )
    drafter: DrafterName | None = Field(default=None, description="Where drafts come from.")
    draft_tokens: int | None = Field(
        default=None, ge=1, le=MOST_DRAFT_TOKENS, description="Tokens of a draft; null adapts them."
    )
    eta: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="How strongly the drafter draws the model's distribution; above 0 is not lossless.",
    )
    interpolation: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest share of the drafter's distribution in what is drawn; above 0 is not lossless.",
    )

    def options(self, max_tokens: int | None) -> AnswerOptions:
        """For the pipeline, which checks them."""
        return AnswerOptions(
            mode=self.mode,
            max_tokens=max_tokens,
            order=self.order,
            reweigh=self.reweigh,
            compress_tokens=self.compress_tokens,
            context_strength=self.context_strength,
            context=ContextOptions(self.context, self.context_temperature, self.context_scale, self.attended),
            long_tokens=self.long_tokens,
            decoding=self.decoding,
            drafter=self.drafter,
            draft_tokens=self.draft_tokens,
            eta=self.eta,
            interpolation=self.interpolation,
        )
