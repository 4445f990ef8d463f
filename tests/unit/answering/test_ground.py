from __future__ import annotations

import pytest
from constitution import DOCUMENT, HOUSE, READER, SENATE, TERMS, TEXTS, hit, hits
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.alignment import align
from pipeline.evidence import gather
from pipeline.ground import SUPPORT_THRESHOLD, ground
from pipeline.sentences import sentences
from pipeline.types import Statement
from pipeline.vetoes import veto

EVIDENCE = gather(hits(), READER)
NOTHING_KNOWN = frozenset[str]().__contains__
SENTENCES = [text[a:b] for text in TEXTS.values() for a, b in sentences(text)]


def verdict(text: str, question: str = "") -> Statement:
    [statement] = ground([text], question, EVIDENCE, READER)
    return statement


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_sentence_of_a_passage_is_supported_by_itself(sentence):
    statement = verdict(sentence)
    assert statement.supported
    assert statement.support == 1
    assert statement.citations[0].quote.rstrip(".") == sentence.rstrip(".")


@pytest.mark.parametrize(
    ("statement", "quoted"),
    [
        ("The House of Representatives shall chuse their Speaker.", "The House of Representatives shall"),
        ("the senate shall have the sole power to TRY all impeachments", "The Senate shall have the sole"),
        ("The Senate of the United States shall be composed of 2 Senators from each State.", "two Senators"),
        ("The Senate must have the sole Power to try all Impeachments.", "sole Power to try all"),
    ],
    ids=["shortened", "other case", "other words", "other word for the duty"],
)  # fmt: skip
def test_what_says_the_same_is_supported(statement, quoted):
    found = verdict(statement)
    assert found.supported, found
    assert quoted in found.citations[0].quote


# Each is a sentence of a passage with one thing changed.
CORRUPTED = [
    ("number", "No Person shall be a Representative who shall not have attained to the Age of "
     "thirty five Years."),
    ("number", "The Senate of the United States shall be composed of 3 Senators from each State."),
    ("number of next door", "The Senate of the United States shall be composed of twenty five Senators "
     "from each State."),
    ("ordinal", "The House shall be composed of Members chosen every third Year by the People "
     "of the several States."),
    ("name", "The House of Lords shall chuse their Speaker and other Officers."),
    ("name of next door", "The Vice President of the United States shall be President of the Court, but "
     "shall have no Vote."),
    ("names exchanged", "The President of the United States shall be Vice President of the Senate, but "
     "shall have no Vote."),
    ("negated", "The Senate shall not have the sole Power to try all Impeachments."),
    ("negation lost", "The Vice President shall be President of the Senate, and shall have a Vote."),
    ("negation lost", "Person shall be convicted of Treason unless on the Testimony of two Witnesses "
     "to the same overt Act."),
    ("opposite", "The Judges, both of the superior and inferior Courts, shall hold their "
     "Offices during bad Behaviour."),
    ("duty made a fact", "The House is composed of Members chosen every second Year."),
    ("duty made a choice", "The Judges, both of the supreme and inferior Courts, may hold their Offices."),
    ("word put in", "The Senate shall have the sole secret Power to try all Impeachments."),
    ("invented", "The Senate was founded by Roman settlers in 1620."),
    ("of another world", "Mitochondria are the powerhouse of the cell."),
]  # fmt: skip


@pytest.mark.parametrize("corrupted", [text for _, text in CORRUPTED], ids=[name for name, _ in CORRUPTED])
def test_what_says_otherwise_is_not(corrupted):
    found = verdict(corrupted)
    assert not found.supported, found
    assert found.citations == ()
    assert found.support < SUPPORT_THRESHOLD


def test_words_quoted_out_of_a_denial_are_not_supported():
    assert verdict(TEXTS["house"][TEXTS["house"].index("No Person") :].split(", and been")[0]).supported
    assert not verdict(
        "have attained to the Age of twenty five Years, and been seven Years a Citizen"
    ).supported


@pytest.mark.parametrize(
    ("source", "statement"),
    [
        ("Between Chur and St. Moritz lies a high valley some 4800 feet above the sea.",
         "St. Moritz is 4800 feet above the sea."),
        ("The tenant may end the lease unless the rent is unpaid.",
         "The tenant may end the lease."),
        ("The brother of Ada Byron wrote the first program in 1843.",
         "Ada Byron wrote the first program in 1843."),
        ("Some critics claim that the tower leans by two metres.",
         "The tower leans by two metres."),
        ("The former president of the society opened the new hall.",
         "The president of the society opened the new hall."),
        ("The company almost lost the case before the court in Leeds.",
         "The company lost the case before the court."),
        ("The licence is non-exclusive and ends after two years.",
         "The licence is exclusive and ends after two years."),
        ("The lender's agent is liable for damage caused to the house.",
         "The lender is liable for damage caused to the house."),
        ("Most of the members voted for the new rules of the club.",
         "The members voted for the new rules of the club."),
        ("According to the defendant, the plaintiff lied about the accident.",
         "The plaintiff lied about the accident."),
        ("He might have signed the lease in the office in May.",
         "He have signed the lease in the office in May."),
        ("The fee for the sale of the house is paid by the buyer or the seller.",
         "The fee for the sale of the house is paid by the buyer."),
    ],
    ids=["torn from its verb", "condition", "other subject", "claimed", "former", "almost", "non-",
         "possessor", "most", "said by", "modal", "alternative"],
)  # fmt: skip
def test_leaving_out_what_matters_is_not_repeating(source, statement):
    assert_only_first_is_supported(source, statement)


@pytest.mark.parametrize(
    ("source", "statement"),
    [
        ("The court may order the defendant to pay the costs.",
         "The court ordered the defendant to pay the costs."),
        ("Either party may end the lease at any time.", "When either party ends the lease at any time."),
        ("The tenant keeps the garden in order.", "The tenant shall keep the garden in order."),
        ("Rent is due from the buyer of the land to the seller.",
         "Rent is due to the buyer of the land from the seller."),
        ("The lender is liable for damage caused by the borrower.",
         "The borrower is liable for damage caused by the lender."),
        ("The lender warns the borrower of the risks.", "The lender warns the lender of the risks."),
        ("The firm pays five lenders and four agents.", "The firm pays four lenders and five agents."),
        ("The seller and the buyer pay the tax.", "The seller or the buyer pay the tax."),
        ("The key is kept in the office.", "The key was kept in the office."),
        ("The firm employs forty people in Leeds.", "The firm employed forty people in Leeds."),
        ("The landlord lives next door to the mill. His agent signed the lease of the house in May.",
         "The landlord signed the lease of the house in May."),
        ("The firm informed the bank of the loss.", "The firm was informed the bank of the loss."),
        ("He said that the meeting would be held.", "She said that the meeting would be held."),
        ("The bridge is closed in winter.", "The bridge is often closed in winter."),
        ("The bank told the firm, which paid the tax in 2020.",
         "In 2020, the bank told the firm, which paid the tax."),
    ],
    ids=["modal lost", "when", "modal added", "from and to", "nouns", "noun", "numerals", "and", "tense",
         "tense of a verb", "possessor", "passive", "gender", "often", "of another clause"],
)  # fmt: skip
def test_putting_in_or_moving_a_word_is_not_repeating(source, statement):
    assert_only_first_is_supported(source, statement)


@pytest.mark.parametrize(
    ("source", "statement"),
    [
        ("Acme bought the mill in the valley in 2020.", "In 2020, Acme bought the mill in the valley."),
        ("In 2020, Acme bought the mill in the valley.", "Acme bought the mill in the valley in 2020."),
        ("Acme also bought this mill in the valley.",
         "According to the text, Acme bought the mill in the valley."),
        ("The tenant may end the lease in writing.", "The tenant can end the lease in writing."),
        ("The mill, which burnt in 1901, is a museum of the town.", "The mill is a museum of the town."),
    ],
    ids=["to the front", "to the end", "lead-in", "can", "clause left out"],
)  # fmt: skip
def test_what_changes_nothing_is_repeating(source, statement):
    [found] = ground([statement], "", gather([hit(source)], READER), READER)
    assert found.supported


def assert_only_first_is_supported(source: str, statement: str) -> None:
    true, false = ground([source, statement], "", gather([hit(source)], READER), READER)
    assert true.supported
    assert not false.supported


def test_a_fragment_needs_a_sentence_that_speaks_of_the_question():
    assert verdict(
        "six Years", "For how many Years are Senators chosen by the Legislature of each State?"
    ).supported
    assert not verdict("six Years", "For how long does a patent protect an invention?").supported
    assert not verdict("nine Years", "For how many Years are Senators chosen by the Legislature?").supported


@pytest.mark.parametrize(
    "statement",
    [
        "The sole power to try impeachments is with the Senate.",
        "Courts inferior to the supreme Court are established by Congress.",
    ],
)
def test_other_words_pass_only_where_paraphrases_are_let_through(statement):
    for paraphrases in (False, True):
        [found] = ground([statement], "", EVIDENCE, READER, paraphrases=paraphrases)
        assert found.supported is paraphrases


@pytest.mark.parametrize("corrupted", [text for _, text in CORRUPTED], ids=[name for name, _ in CORRUPTED])
def test_what_says_otherwise_is_no_paraphrase_either(corrupted):
    [found] = ground([corrupted], "", EVIDENCE, READER, paraphrases=True)
    assert not found.supported


def test_nothing_is_supported_by_nothing():
    nothing = gather((), READER)
    assert [s.supported for s in ground(["A statement.", "…"], "", nothing, READER)] == [
        False,
        False,
    ]


def test_a_name_may_stand_for_the_pronoun_it_explains():
    life = hit("Ada Byron was born in London. She wrote the first program in 1843. Her notes were long.")
    evidence = gather([life], READER)
    right, wrong = ground(
        ["Ada Byron wrote the first program in 1843.", "Charles Babbage wrote the first program in 1843."],
        "Who wrote the first program?", evidence, READER,
    )  # fmt: skip
    assert right.supported
    assert not wrong.supported


@pytest.mark.parametrize(
    ("source", "statement"),
    [
        ("Die Miete beträgt 450 Euro im Monat und ist am dritten Werktag fällig.",
         "Die Miete beträgt 540 Euro im Monat und ist am dritten Werktag fällig."),
        ("Der Mieter darf die Wohnung untervermieten, wenn der Vermieter zustimmt.",
         "Der Mieter darf die Wohnung nicht untervermieten, wenn der Vermieter zustimmt."),
        ("Le locataire paie le loyer le premier jour du mois.",
         "Le locataire ne paie pas le loyer le premier jour du mois."),
        ("この塔の高さは三百三十三メートルで、1958年に完成した。",
         "この塔の高さは三百三十三メートルで、1985年に完成した。"),
    ],
    ids=["de number", "de negation", "fr negation", "ja number"],
)  # fmt: skip
def test_other_languages(source, statement):
    assert_only_first_is_supported(source, statement)


def test_vetoes_say_why():
    span = (0, HOUSE.index(" No Person"))
    assert veto("The House has 435 members.", hit(HOUSE), span, TERMS) == "a number is not there"
    assert veto("The House of Lords sits.", hit(HOUSE), span, TERMS) == "Lords is not there"


def test_alignment_counts_words_in_order():
    assert align("a b c d", "a b x d", TERMS).share == 0.75
    assert align("", "a", TERMS).share == 0
    assert align("a b", "a b", TERMS).change(NOTHING_KNOWN) == ""
    assert align("be capable of flight", "be incapable of flight", TERMS).change(NOTHING_KNOWN) == (
        "capable is put in"
    )


@settings(max_examples=60, deadline=None)
@given(
    sentence=st.sampled_from(SENTENCES),
    cut=st.tuples(st.integers(0, 30), st.integers(1, 30)),
    gap=st.sampled_from([" ", "\n", "  "]),
)
def test_a_citation_is_exactly_what_the_document_says_there(sentence, cut, gap):
    words = sentence.split()[cut[0] : cut[0] + cut[1]]
    for statement in ground([gap.join(words)], "What is said?", EVIDENCE, READER):
        for citation in statement.citations:
            assert DOCUMENT.text[citation.start : citation.end] == citation.quote
        assert statement.supported == bool(statement.citations)
        assert 0 <= statement.support <= 1


def test_a_passage_of_two_granularities_cites_within_the_document():
    late = SENATE.index("The Vice President")
    part = hit(SENATE[late:], start=DOCUMENT.text.index(SENATE) + late, document_id="constitution")
    [statement] = ground(
        ["The Senate shall have the sole Power to try all Impeachments."],
        "", gather([part], READER), READER,
    )  # fmt: skip
    [citation] = statement.citations
    assert DOCUMENT.text[citation.start : citation.end] == citation.quote
