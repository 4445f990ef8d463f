"""How hits, citations and timings look to a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.text import Text

from api.commands.frame import printable
from pipeline.types import Answer, Citation, Hit, Location, Ordering

SHOWN_CHARS = 400  # of a passage in a list of hits
SHOWN_PLACES = 5  # of those that repeat it


def hit_lines(rank: int, hit: Hit, *, full: bool) -> Text:
    """A hit: where it is, how each stage scored it, and its text."""
    head = f"{rank}. {hit.title or hit.document_id}, {place(hit)}"
    scores = "  ".join(f"{name} {score:.3f}" for name, score in hit.scores.items())
    section = f"   {hit.section}\n" if hit.section else ""
    also = [f"   also in {_name(at)}, {place(at)}\n" for at in hit.also[:SHOWN_PLACES]]
    if len(hit.also) > SHOWN_PLACES:
        also.append(f"   and in {len(hit.also) - SHOWN_PLACES} more\n")
    text = hit.text if full or len(hit.text) <= SHOWN_CHARS else hit.text[:SHOWN_CHARS].rstrip() + " …"
    return Text.assemble(
        (printable(f"{head}\n"), "bold"),
        (printable(section), "italic"),
        (f"   score {hit.score:.3f}  {scores}\n", "dim"),
        printable(indented(text)) + "\n",
        (printable("".join(also)), "dim"),
    )


def _name(at: Location) -> str:
    """The id, since what repeats a text often has its title too, and the title."""
    return f"{at.document_id} ({at.title})" if at.title else at.document_id


def citation_lines(number: int, citation: Citation) -> Text:
    """A citation: title, page, characters, and the quoted words."""
    head = f"[{number}] {citation.title or citation.document_id}, {place(citation)}\n"
    return Text.assemble((printable(head), "bold"), printable(indented(f"“{flat(citation.quote)}”")) + "\n")


def place(at: Hit | Location | Citation) -> str:
    """Pages, where the document has any, and characters."""
    pages = ""
    if at.page_start is not None:
        last = at.page_end if at.page_end is not None else at.page_start
        pages = f"page {at.page_start}, " if last == at.page_start else f"pages {at.page_start}-{last}, "
    return f"{pages}characters {at.start}-{at.end}"


def timing_line(timings: Mapping[str, float]) -> str:
    """Seconds by stage."""
    return "  ".join(f"{stage} {seconds:.2f} s" for stage, seconds in timings.items())


def ordering_line(ordering: Ordering) -> str:
    """How the passages of the prompt came into their order, and what that cost."""
    rank = {chunk_id: number for number, chunk_id in enumerate(ordering.before, 1)}
    after = ", ".join(str(rank[chunk_id]) for chunk_id in ordering.after)
    readings = "reading" if ordering.readings == 1 else "readings"
    cost = f"; {ordering.readings} more {readings}, {ordering.seconds:.2f} s" if ordering.readings else ""
    shares = ", ".join(f"{share:.2f}" for share in ordering.shares.values())
    biases = ", ".join(f"{bias:+.2f}" for bias in ordering.biases.values())
    moved = f"; attention by passage, as read: {shares}" if shares else ""
    moved += f"; bias of attention by passage, as read: {biases}" if biases else ""
    return f"order {ordering.used} (passages by rank, as the model read them): {after}{moved}{cost}"


def said(text: str) -> Text:
    """A piece of an answer."""
    return Text(printable(text))


def source_lines(answer: Answer) -> Iterator[Text]:
    """Every citation of an answer once, in order, and what the model said without support."""
    cited = [citation for statement in answer.statements for citation in statement.citations]
    for number, citation in enumerate(dict.fromkeys(cited), 1):
        yield citation_lines(number, citation)
    unsupported = [statement.text for statement in answer.statements if not statement.supported]
    if unsupported:
        yield Text("Left out, because no passage supports it as an answer:", "dim")
        yield from (Text(printable(indented(flat(text))), "dim") for text in unsupported)


def flat(text: str) -> str:
    """One line."""
    return " ".join(text.split())


def indented(text: str) -> str:
    """Every line moved in by three."""
    return "\n".join(f"   {line}" for line in text.splitlines())
