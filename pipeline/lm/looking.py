"""What a question looks at among passages in the prompt that the answer would be written from.

Imports torch, which takes seconds: import this module where a model is about to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipeline.lm.signals import CONTENT_FREE, Looks
from pipeline.lm.spans import address
from pipeline.lm.watching import Watched, watch, watch_batch
from pipeline.prompt import place
from pipeline.types import Hit

if TYPE_CHECKING:
    from pipeline.lm.chat import ChatFormat
    from pipeline.lm.model import LocalModel


def watched(chat: ChatFormat, question: str, passages: Sequence[Hit]) -> tuple[Watched, int]:
    """The prompt to watch from the question's first token to the end, and the question's tokens."""
    placed = place(question, passages)
    found = address(chat, placed.messages, [*placed.passages, placed.question])
    *spans, (first, end) = found.spans
    return Watched(found.ids, tuple(spans), range(first, len(found.ids))), end - first


def look(
    model: LocalModel,
    questions: Sequence[str],
    passages: Sequence[Hit],
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Looks]:
    """Looks of several questions at the same passages, which are read once."""
    prompts = [watched(model.chat, question, passages) for question in questions]
    masses = watch(model, [prompt for prompt, _ in prompts], cancelled)
    return [Looks(mass.numpy(), tokens) for mass, (_, tokens) in zip(masses, prompts, strict=True)]


def look_batch(
    model: LocalModel,
    asked: Sequence[tuple[str, Sequence[Hit]]],
    progress: Callable[[int], None] = lambda _: None,
) -> list[Looks]:
    """Looks of many questions, each at passages of its own; fast on a GPU."""
    with ThreadPoolExecutor() as pool:
        prompts = list(pool.map(lambda one: watched(model.chat, *one), asked))
    masses = watch_batch(model, [prompt for prompt, _ in prompts], progress)
    return [Looks(mass.numpy(), tokens) for mass, (_, tokens) in zip(masses, prompts, strict=True)]


def without_content(
    model: LocalModel,
    asked: Sequence[tuple[str, Sequence[Hit]]],
    progress: Callable[[int], None] = lambda _: None,
) -> list[Looks]:
    """As :func:`look_batch`, with the content-free question instead of each."""
    return look_batch(model, [(CONTENT_FREE, passages) for _, passages in asked], progress)
