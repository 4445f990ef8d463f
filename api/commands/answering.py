"""``longleaf search`` and ``longleaf ask``: passages and answers out."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from api.commands.frame import Run, command
from api.commands.options import Budget, Collection, DocumentId, Filter, Tenant, TopK

_EXAMPLE = 'Write --filter \'{"year": {"gte": 2020}}\'.'


def register(app: typer.Typer) -> None:
    """Add the family to the command tree."""
    command(app, "ask", needs_data=True)(ask)
    command(app, "search", needs_data=True)(search)


def ask(
    run: Run,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In words.")],
    *,
    collection: Collection = "default",
    tenant: Tenant = "default",
    mode: Annotated[
        Literal["auto", "extractive", "composed"] | None,
        typer.Option(help="Quotations only, the model's own words, or both (auto)."),
    ] = None,
    top_k: TopK = 20,
    filter_: Filter = None,
    document_id: DocumentId = None,
    budget: Budget = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens the model writes.")] = None,
    order: Annotated[
        Literal["auto", "score", "reverse", "edges", "document", "attention_sorting", "found_in_the_middle"]
        | None,
        typer.Option(help="Order of passages in the prompt; auto is what the model's calibration found."),
    ] = None,
    reweigh: Annotated[
        Literal["auto", "off", "bias", "score", "attention_sorting", "found_in_the_middle"] | None,
        typer.Option(
            help="How attention to passages is moved while the model writes: by a bias, or shared by scores."
        ),
    ] = None,
    compress: Annotated[
        int | None, typer.Option(min=1, help="Shorten passages to their best sentences within these tokens.")
    ] = None,
    context_strength: Annotated[
        float | None, typer.Option(min=0, max=4, help="Draw the model to the passages; 0 is off.")
    ] = None,
    context: Annotated[
        Literal["sequential", "prefix", "ape", "auto"] | None,
        typer.Option(
            help="Read passages in order (prefix: with what was read before) or from cached states."
        ),
    ] = None,
    attended: Annotated[
        int | None, typer.Option(min=1, max=256, help="Most cached passages attended of those found.")
    ] = None,
    long_tokens: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens the model reads around the passages; a drafter reads those alone."),
    ] = None,
    decoding: Annotated[
        Literal["auto", "plain", "speculative"] | None,
        typer.Option(help="Draft never, always, or while it is predicted to pay (auto)."),
    ] = None,
    drafter: Annotated[
        Literal["lookup", "model", "mixture"] | None, typer.Option(help="Where drafts come from.")
    ] = None,
    draft_tokens: Annotated[
        int | None, typer.Option(min=1, max=16, help="Tokens of a draft; adapted by default.")
    ] = None,
    eta: Annotated[
        float | None,
        typer.Option(min=0, help="How strongly the drafter draws the model; above 0 is not lossless."),
    ] = None,
    interpolation: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Largest share of the drafter's distribution; above 0 is not lossless."
        ),
    ] = None,
) -> None:
    """Answer a question from the documents, every statement with its source.

    Example: longleaf ask "When may the tenant end the lease?" -c contracts
    """
    from api.commands import passages
    from pipeline.answer import AnswerOptions
    from pipeline.events import Done, TokenDelta
    from pipeline.lm.context_options import ContextOptions
    from pipeline.types import Query

    query = Query(
        text=question,
        collection=collection,
        tenant=tenant,
        top_k=top_k,
        filter=_conditions(filter_),
        document_id=document_id,
        budget_tokens=budget,
    )
    options = AnswerOptions(
        mode=mode,
        max_tokens=max_tokens,
        order=order,
        reweigh=reweigh,
        compress_tokens=compress,
        context_strength=context_strength,
        context=ContextOptions(context, attended=attended),
        long_tokens=long_tokens,
        decoding=decoding,
        drafter=drafter,
        draft_tokens=draft_tokens,
        eta=eta,
        interpolation=interpolation,
    )
    answerer = run.longleaf.benches.of(tenant, collection).answerer
    if run.json:
        run.emit(answerer.answer(query, options))
        return
    for event in answerer.stream(query, options):
        if isinstance(event, TokenDelta):
            run.out.print(passages.said(event.text), end="", soft_wrap=True)
        elif isinstance(event, Done):
            run.out.print("\n")
            for line in passages.source_lines(event.answer):
                run.out.print(line, soft_wrap=True)
            if (order or reweigh) and event.answer.ordering is not None:
                run.note(passages.ordering_line(event.answer.ordering))
            for what in event.answer.degraded:
                run.note(f"note: {what}", "yellow")
            run.note(passages.timing_line(event.answer.timings))


def search(
    run: Run,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question, in words.")],
    *,
    collection: Collection = "default",
    tenant: Tenant = "default",
    top_k: TopK = 10,
    filter_: Filter = None,
    document_id: DocumentId = None,
    budget: Budget = None,
    full: Annotated[bool, typer.Option("--full", help="Print whole passages.")] = False,
) -> None:
    """Find the passages that answer a query.

    Example: longleaf search "notice period for termination" -c contracts -k 5
    """
    from pipeline.types import Query

    asked = Query(
        text=query,
        collection=collection,
        tenant=tenant,
        top_k=top_k,
        filter=_conditions(filter_),
        document_id=document_id,
        budget_tokens=budget,
    )
    retrieval = run.longleaf.benches.of(tenant, collection).retriever.search(asked)
    if run.json:
        run.emit(retrieval)
        return
    from api.commands import passages

    for rank, hit in enumerate(retrieval.hits, 1):
        run.out.print(passages.hit_lines(rank, hit, full=full), soft_wrap=True)
    if not retrieval.hits:
        run.note("Nothing was found.")
    for what in retrieval.degraded:
        run.note(f"note: {what}", "yellow")
    run.note(passages.timing_line(retrieval.timings))


def _conditions(text: str | None) -> dict[str, Any] | None:
    from pipeline.errors import InvalidRequestError

    if text is None:
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"The filter is not JSON: {error}.", remedy=_EXAMPLE) from error
    if not isinstance(value, dict):
        raise InvalidRequestError(
            "The filter is not a JSON object.", remedy="Write --filter '{\"year\": 2020}'."
        )
    return value
