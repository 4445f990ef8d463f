"""Generated questions: their spans hold their answers, and the same seed gives the same set."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConflictError, InvalidRequestError
from pipeline.evaluation.dataset import load_set
from pipeline.evaluation.generate import KINDS, generate
from pipeline.evaluation.saving import save_set
from pipeline.read.text import from_text
from pipeline.types import Document, Section

TEXT = """# The keeping of bees

A hive is a house in which bees live and store what they gather over the summer.
The keeper visited on 14 March 1887 and counted nineteen swarms beside the old orchard wall of Fennimore.
Nobody remembers afterwards why the tallest of the seven lindens was cut down before the winter came.

# What is done in winter months

A smoker means a can with bellows that blows cool smoke over the frames of a hive.
In the coldest weeks the keeper lifts every hive once and judges by its weight what is left inside.
It is the custom in Ardmore to wrap the boxes in straw and to leave them alone until the crocus flowers.
"""


def documents(count: int = 3) -> list[Document]:
    made = []
    for i in range(count):
        text = TEXT.replace("1887", str(1880 + i)).replace("Fennimore", f"Fennimore{i}")
        sections = tuple(
            Section(title, 1, text.index(title), text.index(title) + 300)
            for title in ("The keeping of bees", "What is done in winter months")
        )
        read = from_text(text, f"Bees {i}")
        made.append(Document(read.title, read.text, sections=sections, id=f"bees-{i}"))
    return made


def test_every_kind_is_asked_and_its_span_holds_the_answer() -> None:
    made = generate(documents(1), each=2, seed=7)
    [document] = made.documents
    assert {q.kind for q in made.questions} == set(KINDS)
    for q in made.questions:
        [(start, end)] = q.spans[document.id]
        evidence = document.text[start:end]
        if q.kind == "heading":
            assert evidence.startswith(q.text)
        elif q.kind == "cloze":
            assert evidence.split() == q.text.replace("____", q.answers[0]).split()
        elif q.kind == "passkey":
            assert q.answers[0] in evidence
        elif q.kind == "definition":
            assert q.text.removeprefix("What is the meaning of ").rstrip("?") in evidence
            assert evidence.rstrip().rstrip(".").endswith(q.answers[0])
        else:
            assert evidence == q.answers[0]
    # What was put in can be taken out again: nothing else is changed.
    left = document.text
    for q in made.questions:
        if q.kind in ("needle", "passkey"):
            [(start, end)] = q.spans[document.id]
            left = left.replace(document.text[start:end] + " ", "")
    assert left == documents(1)[0].text


def test_sets_are_reproducible_and_survive_being_written(tmp_path: Path) -> None:
    made = generate(documents(), each=3, seed=1)
    assert made == generate(documents(), each=3, seed=1)
    assert made != generate(documents(), each=3, seed=2)
    save_set(made, tmp_path / "set")
    read = load_set(tmp_path / "set")
    assert read.documents == made.documents
    assert read.questions == made.questions
    with pytest.raises(ConflictError, match="holds a set already"):
        save_set(made, tmp_path / "set")


def test_a_question_that_two_documents_answer_is_one_question() -> None:
    made = generate(documents(2), each=2)
    headings = [q for q in made.questions if q.kind == "heading"]
    assert len({q.text for q in made.questions}) == len(made.questions)
    assert all(len(q.relevance) == 2 for q in headings)


@pytest.mark.parametrize(
    ("sentence", "term"),
    [
        ("For the skier there is a wide choice of runs in this valley.", None),
        ("The position we occupy is the key to the whole of the campaign.", None),
        ("Clothes are put on before the skier goes out of the house.", None),
        ("Clothing is the most important item of a skier's equipment.", None),
        ('Power is a thing that nobody understands, is it not?" he said.', None),
        ("In 1887 the rink is a place of great resort for the visitors.", None),
        ("Keeper of the Mill means the owner of the mill by the brook.", "Keeper of the Mill"),
        ("A smoker means a can with bellows that blows cool smoke.", "A smoker"),
        ("“Confidential Information” shall mean all that is told in writing.", "Confidential Information"),
        ("A Follow-up is a visit after the treatment of a patient is over.", "Follow-up"),
    ],
)
def test_definitions_are_of_names_and_not_of_half_a_clause(sentence: str, term: str | None) -> None:
    text = f"The keeper came home at night. {sentence} Nobody was there to see it."
    made = generate([Document("t", text, id="a")], each=3)
    asked = [q.text for q in made.questions if q.kind == "definition"]
    assert asked == ([f"What is the meaning of {term}?"] if term else [])


def test_nothing_to_ask_is_told() -> None:
    with pytest.raises(InvalidRequestError, match="Nothing can be asked"):
        generate([Document("x", "word", id="a")])
    with pytest.raises(InvalidRequestError, match="each is 0"):
        generate(documents(), each=0)


@given(st.lists(st.sampled_from([*TEXT.splitlines(), "", "x", "東京は都です。"]), min_size=3, max_size=20))
def test_spans_are_in_bounds_for_any_text(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        made = generate([Document("t", text, id="a")], each=3)
    except InvalidRequestError:
        return
    for q in made.questions:
        for start, end in q.spans["a"]:
            assert 0 <= start < end <= len(made.documents[0].text)
            if q.kind == "cloze":
                assert q.answers[0] in made.documents[0].text[start:end]
