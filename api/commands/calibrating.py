"""``longleaf calibrate``: what the configured models need to be measured for, once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.evaluating import progress as bar
from api.commands.frame import Run, command
from api.commands.options import Tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.lm.calibrating import Trial
    from pipeline.lm.calibration import Calibration
    from pipeline.lm.context_options import ContextCalibration
    from pipeline.lm.model import LocalModel
    from pipeline.lm.signals import Signal

SHOWN_HEADS = 10


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    family = typer.Typer(help="Measure the configured models, once for each.", no_args_is_help=True)
    command(family, "lm")(calibrate_lm)
    command(family, "embedder")(calibrate_embedder)
    app.add_typer(family, name="calibrate")


def calibrate_lm(
    run: Run,
    *,
    pairs: Annotated[
        Path | None,
        typer.Option(help="JSON lines with question, answer and passage; made-up ones if not given."),
    ] = None,
    questions: Annotated[int, typer.Option(min=8, help="Questions to measure with.")] = 64,
    scored: Annotated[
        int, typer.Option(min=8, help="Of them, questions whose reference answers are scored; slow.")
    ] = 32,
    passages: Annotated[int, typer.Option(min=3, help="Passages of each prompt.")] = 10,
    seed: Annotated[int, typer.Option(help="Which questions and distractors are drawn.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write the curve by position as a PNG there.")] = None,
    contexts: Annotated[
        bool, typer.Option(help="Measure cached contexts too: temperature, scale, passages attended.")
    ] = True,
) -> None:
    """Find which attention of the language model points to answers, and where in a prompt it reads best.

    The result is kept under the data folder with the weights' digest and used by every answer from then on.

    Example: longleaf calibrate lm --pairs questions.jsonl --questions 32 --plot bias.png
    """
    from pipeline.errors import ModelError
    from pipeline.lm import calibration as stored
    from pipeline.lm.calibrating import calibrate
    from pipeline.lm.model import LocalModel
    from pipeline.lm.pairs import made_up, read_pairs, trials

    given = read_pairs(pairs) if pairs else made_up(max(4 * questions, 8 * passages), seed)
    model = run.longleaf.language_model
    if not isinstance(model, LocalModel):
        raise ModelError(
            f"{model.name} is not in this process, so its attention cannot be seen.",
            remedy="Calibrate a model that runs here: set language_model.spec to its folder or hub id.",
        )
    asked = trials(given, lambda q, p: _scores(run, q, p), count=questions, passages=passages, seed=seed)
    with bar(run) as show:
        found = calibrate(
            model,
            asked,
            pairs=f"{len(given)} pairs of {pairs.name}" if pairs else "made-up passages",
            scored=scored,
            progress=lambda done, total: show("calibrating", done, total),
        )
    path = stored.write(found, run.settings.data / "calibrations")
    cached = _contexts(run, model, asked, found) if contexts else None
    if run.json:
        run.emit({**asdict(found), "contexts": cached})
    else:
        for line in [*table(found), *(context_lines(cached) if cached else [])]:
            run.out.print(line, soft_wrap=True, markup=False)
    if plot is not None:
        draw(found, plot)
        run.note(f"The curve is in {plot}.")
    run.note(f"Stored as {path}.")


def calibrate_embedder(
    run: Run,
    collection: Annotated[str, typer.Argument(help="Whose documents it learns from.")] = "default",
    *,
    tokens: Annotated[int, typer.Option(min=1, help="About how many of their tokens are read.")] = 2_000_000,
    tenant: Tenant = "default",
) -> None:
    """Let the embedder learn from a collection what its vectors share (`whitened`, `centred`).

    Without it they learn from the first documents ingested, which may be few and alike. Afterwards all
    collections made with this embedder must be indexed anew; until then only servers that run already can
    search them, and must be started anew thereafter.

    Example: longleaf calibrate embedder contracts --set embedder.name=whitened
    """
    from pipeline.learning import learn
    from pipeline.records import tenant_option

    parts, cut = run.longleaf, run.settings.chunking
    with bar(run) as show:
        found = learn(
            parts.ledger,
            parts.embedder,
            cut,
            tenant=tenant,
            collection=collection,
            tokens=tokens,
            progress=lambda done, total: show("learning", done, total),
        )
    if run.json:
        run.emit(found)
    else:
        run.out.print(
            f"learnt from {found.documents} documents, {found.tokens} tokens, {found.vectors} vectors"
        )
    for owner, name in found.outdated:
        again = f"longleaf reindex {name}{tenant_option(owner)}"
        run.note(f"Cannot be searched until it is built anew: {again}", style="yellow")


def table(found: Calibration) -> list[str]:
    """What was found, for people."""
    lines = [
        f"{found.model} ({found.revision[:16]}), {found.trials} questions with {found.passages} passages, "
        f"{found.scored} of them scored",
        "",
        "gold passage at   log-probability   greedy answer right",
        *(f"{at.position + 1:>15}   {at.logprob:>15.2f}   {at.accuracy:>19.2f}" for at in found.positions),
        "",
        "R@1 of the gold passage",
        *(f"{value:>6.2f}  {name}" for name, value in found.recall.items()),
        "",
        "log-probability by order",
        *(f"{value:>6.2f}  {_placed(found, name)}" for name, value in found.logprobs.items()),
        "",
    ]
    for order, (low, mean, high) in found.gains.items():
        base = f"{found.placement} with bias" if found.bias_pays and order != "bias" else found.placement
        lines.append(f"{order} instead of {base}: {mean:+.2f} [{low:+.2f}, {high:+.2f}]")
    for order in ("attention_sorting", "found_in_the_middle"):
        fused = found.fused(order)  # type: ignore[arg-type]
        lines.append(f"{order}: {fused.signal.tokens} tokens, {_who(fused.signal)}, weight {fused.weight}")
    auto = f"auto: {found.auto}; the best passage goes by {found.placement}; attention "
    return [*lines, "", auto + ("is biased" if found.bias_pays else "stays as it is")]


def _placed(found: Calibration, name: str) -> str:
    """An order, and whether attention is biased under it."""
    if name == "bias":
        return f"{found.placement}, with bias"
    biased = found.bias_pays and name in ("attention_sorting", "found_in_the_middle")
    return f"{name}, with bias" if biased else name


def _who(signal: Signal) -> str:
    """Whose attention counts."""
    if not signal.heads:
        return f"layers {signal.layers or 'all'}"
    shown, left = signal.heads[:SHOWN_HEADS], len(signal.heads) - SHOWN_HEADS
    named = f"heads {', '.join(map(str, shown))}" + (f" and {left} more" if left > 0 else "")
    return named + (" by weights" if signal.weights else "")


def context_lines(found: ContextCalibration) -> list[str]:
    """What was found of cached contexts, for people."""
    mean, low, high = found.loss_nats or (0.0, 0.0, 0.0)
    return [
        "",
        f"cached contexts: temperature {found.temperature}, scale {found.scale}, "
        f"attending {found.attended or 'all passages'}",
        f"instead of sequential reading: {-mean:+.2f} [{-high:+.2f}, {-low:+.2f}] nats a token, "
        f"{found.questions} questions",
    ]


def _contexts(run: Run, model: LocalModel, asked: Sequence[Trial], found: Calibration) -> ContextCalibration:
    """Measure cached contexts with the heads that were found, and store what comes out."""
    from pipeline.lm import context_calibration
    from pipeline.lm.context_calibrating import calibrate_contexts

    looking = found.few_heads or found.attention_sorting
    with bar(run) as show:
        cached = calibrate_contexts(
            model,
            asked,
            heads=looking.signal.heads or (),
            weight=looking.weight,
            pairs=found.pairs,
            progress=lambda done, total: show("cached contexts", done, total),
        )
    context_calibration.write(cached, run.settings.data / "calibrations")
    return cached


def draw(found: Calibration, path: Path) -> None:
    """The position-bias curve as a PNG. Raises MissingDependencyError without matplotlib, StorageError."""
    from api.plots import png

    with png(path, dpi=120, remedy="Choose another path.") as figure:
        left = figure.subplots()
        places = [at.position + 1 for at in found.positions]
        left.plot(places, [at.logprob for at in found.positions], marker="o", color="tab:blue")
        left.set_xlabel(f"place of the passage with the answer, of {found.passages}")
        left.set_ylabel("log-probability of the answer, a token", color="tab:blue")
        right = left.twinx()
        right.plot(places, [at.accuracy for at in found.positions], marker="s", color="tab:orange")
        right.set_ylabel("greedy answers that are right", color="tab:orange")
        right.set_ylim(0, 1)
        left.set_title(f"{found.model}, n = {found.scored}")


def _scores(run: Run, questions: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
    """The configured embedder's scores: each passage's best chunk."""
    import numpy as np

    from pipeline.chunk import chunk
    from pipeline.types import Document

    embedder = run.longleaf.embedder
    asked = embedder.embed_queries(list(questions)).vectors
    documents = [chunk(Document("", text), embedder.encode(text), run.settings.chunking) for text in passages]
    best = [(asked @ each.passages.T).max(1) for each in embedder.embed_documents(documents)]
    return np.stack(best, 1).astype(np.float32)
