"""A language model's own sentences, each given out as soon as it is complete.

Whoever asks for the next sentence lets the model go on; whoever stops asking stops the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import islice

from pipeline.errors import ModelError, UnavailableError, WorkCancelledError
from pipeline.lm.request import MOST_DRAFT_TOKENS, GeneratingModel, Generation, Moved
from pipeline.progress import Progress
from pipeline.prompt import Prompt, place
from pipeline.seams import LanguageModel, Sampling, TextDelta
from pipeline.sentences import sentences

STOP = ("\n\n",)
MOST_STRENGTH = 4.0
"""Beyond this, context-aware decoding writes what is merely unlikely without the passages."""
_MOST_REST = MOST_DRAFT_TOKENS + 2
"""Deltas of the tokens that one round of drafting may still have written, and the last one."""
_LEAD_IN = re.compile(r"^(?:the )?answer(?: to [^:?]*)? is:?\s+(?=\S)|^answer:\s*", re.IGNORECASE)


def written(
    model: LanguageModel,
    prompt: Prompt,
    run: Progress,
    sampling: Sampling,
    strength: float,
    *,
    reuse: bool = True,
    draft: Prompt | None = None,
    moved: Moved | None = None,
) -> Iterator[TextDelta]:
    """What the model writes after reading the prompt, drawn to the passages by ``strength``, or drafted as
    the request says by a drafter that reads ``draft``. ``reuse`` lets it begin with what it has read before;
    ``moved`` moves its attention between passages.
    What the model cannot do is said in ``degraded``.
    """
    speculation = run.speculation
    if not isinstance(model, GeneratingModel):
        if strength:
            run.degraded.append(f"{model.name} cannot decode context-aware: it gives no logits")
        if speculation.is_demanded:
            run.degraded.append(f"{model.name} cannot verify drafts: decoded plainly, without guidance")
        return model.stream(prompt.messages, sampling, run.ended)
    if not strength:
        drafted = draft.messages if draft is not None else ()
        return model.generate(
            Generation(
                prompt.messages,
                sampling,
                speculation,
                drafted,
                run.query.tenant,
                run.ended,
                reuse=reuse,
                moved=moved,
            )
        )
    if speculation.is_demanded:
        run.degraded.append("nothing was drafted: the answer was decoded context-aware")
    bare = place(run.query.text, ()).messages
    return model.generate(
        Generation(
            prompt.messages,
            sampling,
            tenant=run.query.tenant,
            cancelled=run.ended,
            context_strength=strength,
            bare_messages=bare,
            reuse=reuse,
        )
    )


def named_failures(sentences: Iterator[str], run: Progress) -> Generator[str]:
    """The sentences up to where the model fails, if it does; ``degraded`` then says so."""
    try:
        yield from sentences
    except (ModelError, UnavailableError) as error:
        run.degraded.append(f"the language model failed: {error}")


def composed(
    deltas: Iterator[TextDelta],
    *,
    max_sentences: int,
    cancelled: Callable[[], bool],
    heard: Callable[[TextDelta], None],
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """At most ``max_sentences`` of what a model writes, wherever it reads. ``heard`` is told every delta.

    ``enough`` is told once there are as many, and says whether the deltas are still to be heard to their end,
    which the model then reaches without another step. A sentence that the token limit cuts off is no
    statement and is left out. Raises WorkCancelledError within one step of ``cancelled()`` being true, and
    ModelError from the model.
    """
    written, given = "", 0
    with _closed_after(deltas):
        for delta in deltas:
            heard(delta)
            if delta.finish == "cancelled" or cancelled():
                raise WorkCancelledError("The answer was cancelled while it was written.")
            written += delta.text
            spans = sentences(written)
            whole = len(spans) if delta.finish == "stop" or _ends(written) else len(spans) - 1
            for start, end in spans[given : min(whole, max_sentences)]:
                sentence = _LEAD_IN.sub("", " ".join(written[start:end].split()))
                if sentence and not sentence.endswith(
                    ("?", "？", "؟")
                ):  # an echo of the question states nothing
                    yield sentence
            given = max(given, whole)
            if given >= max_sentences:
                for rest in islice(deltas, _MOST_REST if enough() else 0):
                    heard(rest)
                return


def _ends(written: str) -> bool:
    """Whether the last sentence is over although no other has begun: white space after its stop."""
    return written[-1:].isspace() and written.rstrip()[-1:] in "!?。！？"


@contextmanager
def _closed_after(deltas: Iterator[TextDelta]) -> Iterator[None]:
    try:
        yield
    finally:
        if isinstance(deltas, Generator):
            deltas.close()
