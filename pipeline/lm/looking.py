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
    asked: Sequence[tuple[str, Sequence[Hit]]],
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Looks]:
    """Looks of questions at passages, one after the other; what consecutive prompts share is read once."""
    prompts = [watched(model.chat, question, passages) for question, passages in asked]
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


def look_both(
    model: LocalModel,
    asked: Sequence[tuple[str, Sequence[Hit]]],
    progress: Callable[[int], None] = lambda _: None,
) -> list[tuple[Looks, Looks]]:
    """Looks of each question and of the content-free one at its passages. ``progress`` is told how many of
    twice as many were finished."""
    if model.network.device.type == "cpu":  # what both share is read once; a GPU rather reads many at once
        found = []
        for question, passages in asked:
            own, free = look(model, [(question, passages), (CONTENT_FREE, passages)])
            found.append((own, free))
            progress(2)
        return found
    own_looks = look_batch(model, asked, progress)
    free_looks = look_batch(model, [(CONTENT_FREE, passages) for _, passages in asked], progress)
    return list(zip(own_looks, free_looks, strict=True))
