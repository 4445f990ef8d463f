"""Fusion against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fuse import Evidence, Fusion, Ranked, fuse
from pipeline.types import Match


def unit(document: str, parent: int, score: float) -> Match:
    payload = {"_document_id": document, "_version": 1, "_parent": parent, "_ordinal": 9}
    return Match(f"{document}-{parent}-{score}", score, payload)


def passage(document: str, ordinal: int, score: float) -> Match:
    payload = {"_document_id": document, "_version": 1, "_parent": ordinal, "_ordinal": ordinal}
    return Match(f"{document}-{ordinal}", score, payload)


def test_scores_by_hand() -> None:
    evidence = Evidence(
        units=[[unit("a", 0, 0.9), unit("a", 0, 0.8), unit("b", 3, 0.5)]],
        passages=[[passage("b", 3, 0.7), passage("a", 0, 0.6)]],
        passages_lexical=[passage("b", 3, 8.0), passage("a", 0, 2.0)],
        documents_lexical=[passage("a", 0, 5.0), passage("b", 0, 4.0)],
    )
    weights = Fusion(dense=0.6, unit=0.5, passage=0.75)

    ranked = {(r.document_id, r.ordinal): r for r in fuse(evidence, weights)}

    a = 0.6 * (0.9 + 0.6) / 2 + 0.4 * 2.0 / 8.0
    whole_a = 0.6 * (0.9 + 0.6) / 2 + 0.4 * 1.0
    assert ranked["a", 0].score == pytest.approx(0.75 * a + 0.25 * whole_a)
    b = 0.6 * (0.5 + 0.7) / 2 + 0.4 * 1.0
    whole_b = 0.6 * (0.5 + 0.7) / 2 + 0.4 * 4.0 / 5.0
    assert ranked["b", 3].score == pytest.approx(0.75 * b + 0.25 * whole_b)
    assert ranked["a", 0].scores["unit"] == pytest.approx(0.9)
    assert ranked["b", 3].scores["lexical"] == 1.0


def test_sentences_are_averaged_and_what_a_list_lacks_counts_as_its_last() -> None:
    evidence = Evidence(
        units=[[unit("a", 0, 0.9), unit("b", 0, 0.4)], [unit("b", 0, 0.8), unit("c", 0, 0.6)]],
        passages=[[], []],
        passages_lexical=[],
        documents_lexical=[],
    )
    found = {r.document_id: r.scores["unit"] for r in fuse(evidence, Fusion())}
    assert found == {
        "a": pytest.approx((0.9 + 0.6) / 2),
        "b": pytest.approx((0.4 + 0.8) / 2),
        "c": pytest.approx((0.4 + 0.6) / 2),
    }


def test_versions_of_a_document_are_kept_apart() -> None:
    old = Match("x", 0.9, {"_document_id": "a", "_version": 1, "_parent": 0, "_ordinal": 0})
    new = Match("y", 0.5, {"_document_id": "a", "_version": 2, "_parent": 0, "_ordinal": 0})
    ranked = fuse(Evidence([[old, new]], [[]], [], []), Fusion())
    assert [(r.version, r.scores["document_unit"]) for r in ranked] == [(1, 0.9), (2, 0.5)]


def test_the_best_of_many_passages_counts_for_less_than_the_best_of_one() -> None:
    evidence = Evidence(
        [[unit("long", 7, 0.8), unit("short", 0, 0.8)]], [[]], [], [passage("long", 0, 3.0)], query_weight=9.0
    )
    fusion, sizes = Fusion(passage=0.5, length_discount=0.1), {("long", 1): 100, ("short", 1): 1}
    discounted = {r.document_id: r for r in fuse(evidence, fusion, sizes)}
    assert discounted["short"].score == fuse(evidence, fusion)[1].score
    assert discounted["long"].scores["document_unit"] == pytest.approx(0.8 - 0.1 * math.log(100))
    assert discounted["long"].scores["unit"] == 0.8
    assert discounted["long"].scores["document_lexical"] == 1
    for method in ("rrf", "weighted_rrf", "distribution"):  # their scores are no cosines
        other = replace(fusion, method=method)
        assert fuse(evidence, other, sizes) == fuse(evidence, other)


def test_sharing_one_word_of_many_is_no_full_match() -> None:
    evidence = Evidence([[unit("a", 0, 0.4)]], [[]], [passage("b", 0, 1.0)], [], query_weight=9.0)
    scores = {r.document_id: r.scores["lexical"] for r in fuse(evidence, Fusion())}
    assert scores == {"a": 0.0, "b": pytest.approx(1 / 3)}


def test_long_questions_lean_on_the_document_and_short_ones_on_the_passage() -> None:
    fusion = Fusion(passage=0.5, usual_words=20)
    assert [fusion.share_of_passage(words) for words in (5, 20, 60)] == [0.8, 0.5, 0.25]
    assert Fusion(passage=0.75, usual_words=20).share_of_passage(60) == pytest.approx(0.5)
    for constant in (Fusion(passage=0.3), Fusion(passage=0.3, usual_words=20)):
        assert constant.share_of_passage(0) == 0.3
    assert Fusion(passage=0.3).share_of_passage(99) == 0.3
    assert [Fusion(passage=p, usual_words=20).share_of_passage(7) for p in (0.0, 1.0)] == [0, 1]


def test_the_length_of_a_question_decides_between_a_place_and_a_document() -> None:
    lists = [[passage("a", 0, 0.8), passage("b", 0, 0.7), passage("b", 1, 0.2)]]
    by_document = [passage("b", 0, 9.0), passage("a", 0, 4.0)]
    best = {
        words: fuse(Evidence([[]], lists, [], by_document, query_words=words), Fusion(usual_words=20))[0]
        for words in (2, 100)
    }
    assert best[2].document_id == "a"
    assert best[100].document_id == "b"


def test_nothing_found_is_an_empty_ranking() -> None:
    assert fuse(Evidence([[]], [[]], [], []), Fusion()) == []


EVIDENCE = Evidence(
    units=[[unit("a", 0, 0.9), unit("a", 0, 0.7), unit("b", 3, 0.5), unit("a", 1, 0.3)]],
    passages=[[passage("b", 3, 0.7), passage("a", 0, 0.6)]],
    passages_lexical=[passage("b", 3, 8.0), passage("a", 0, 2.0)],
    documents_lexical=[passage("a", 0, 5.0)],
)


def found(fusion: Fusion) -> dict[tuple[str, int], Ranked]:
    return {(r.document_id, r.ordinal): r for r in fuse(EVIDENCE, fusion)}


def test_reciprocal_ranks_by_hand() -> None:
    ranked = found(Fusion(method="weighted_rrf", rrf_k=60, dense=0.7, unit=0.25, passage=1.0))
    a = 0.7 * (0.25 / 61 + 0.75 / 62) + 0.3 / 62
    assert ranked["a", 0].score == pytest.approx(a)
    b = 0.7 * (0.25 / 62 + 0.75 / 61) + 0.3 / 61
    assert ranked["b", 3].score == pytest.approx(b)
    assert ranked["a", 1].scores["unit"] == pytest.approx(1 / 63)
    assert ranked["a", 1].scores["lexical"] == 0  # not found: no rank


def test_plain_reciprocal_ranks_have_no_weights() -> None:
    plain = Fusion(method="rrf", dense=0.9, unit=0.1, passage=0.9)
    equal = Fusion(method="weighted_rrf", dense=0.5, unit=0.5, passage=0.5)
    assert fuse(EVIDENCE, plain) == fuse(EVIDENCE, equal)


def test_equal_scores_share_a_rank() -> None:
    tied = Evidence([[unit("a", 0, 0.9), unit("b", 0, 0.9), unit("c", 0, 0.1)]], [[]], [], [])
    scores = {r.document_id: r.scores["unit"] for r in fuse(tied, Fusion(method="rrf"))}
    assert scores == {"a": 1 / 61, "b": 1 / 61, "c": pytest.approx(1 / 63)}


def test_distributions_by_hand() -> None:
    ranked = found(Fusion(method="distribution", dense=1.0, unit=0.0, passage=1.0))
    # Two passages at .7 and .6: mean .65, deviation .05, so they stand one deviation from it.
    assert ranked["b", 3].score == pytest.approx((0.05 + 0.15) / 0.3)
    assert ranked["a", 0].score == pytest.approx((-0.05 + 0.15) / 0.3)
    assert ranked["a", 1].score == 0


def test_roll_ups_by_hand() -> None:
    best = found(Fusion(roll_up="max"))["a", 0].scores
    assert (best["unit"], best["document_unit"]) == (pytest.approx(0.9), pytest.approx(0.9))
    mean = found(Fusion(roll_up="mean_top", roll_up_top=2))["a", 0].scores
    assert mean["unit"] == pytest.approx((0.9 + 0.7) / 2)
    three = found(Fusion(roll_up="mean_top", roll_up_top=3))["a", 0].scores
    assert three["unit"] == pytest.approx((0.9 + 0.7 + 0.3) / 3)  # the missing one counts as the last of all
    t = 0.1
    soft = found(Fusion(roll_up="log_sum_exp", roll_up_temperature=t))["a", 0].scores
    assert soft["unit"] == pytest.approx(t * math.log(math.exp(0.9 / t) + math.exp(0.7 / t)))
    hard = found(Fusion(roll_up="log_sum_exp", roll_up_temperature=1e-4))["a", 0].scores
    assert hard["unit"] == pytest.approx(0.9, abs=1e-3)


def test_a_soft_maximum_of_unit_and_passage_by_hand() -> None:
    def score(**options: float) -> float:
        fusion = Fusion(dense=1, passage=1, join="soft_max", **options)
        return fuse(Evidence([[unit("a", 0, 0.9)]], [[passage("a", 0, 0.4)]], [], []), fusion)[0].score

    t = 0.1
    wanted = t * math.log(0.5 * math.exp(0.9 / t) + 0.5 * math.exp(0.4 / t))
    assert score() == pytest.approx(wanted)
    assert score(unit=0.25, join_temperature=0.2) == pytest.approx(
        0.2 * math.log(0.25 * math.exp(4.5) + 0.75 * math.exp(2.0))
    )
    assert score(join_temperature=0.001) == pytest.approx(0.9, abs=1e-3)  # towards 0 the larger of the two
    assert score(join_temperature=1e4) == pytest.approx(0.65, abs=1e-4)  # the larger, the more the mean
    assert (score(unit=1.0), score(unit=0.0)) == (pytest.approx(0.9), pytest.approx(0.4))


def test_a_sentence_that_says_it_beats_a_passage_about_it_only_by_soft_maximum() -> None:
    units = [[unit("says", 0, 0.9), unit("about", 0, 0.6)]]
    passages = [[passage("about", 0, 0.6), passage("says", 0, 0.2)]]

    def best(fusion: Fusion) -> str:
        return fuse(Evidence(units, passages, [], []), fusion)[0].document_id

    assert best(Fusion(dense=1)) == "about"
    assert best(Fusion(dense=1, join="soft_max")) == "says"


scores = st.floats(-1, 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), scores), max_size=30), st.data())
def test_a_better_unit_never_lowers_its_passage(
    found: list[tuple[str, int, float]], data: st.DataObject
) -> None:
    fusion = data.draw(
        st.builds(
            Fusion,
            method=st.sampled_from(["convex", "weighted_rrf", "rrf"]),
            roll_up=st.sampled_from(["max", "mean_top", "log_sum_exp"]),
            unit=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
            join=st.sampled_from(["mean", "soft_max"]),
            join_temperature=st.sampled_from([0.001, 0.1, 10.0]),
        )
    )

    def ranking(units: list[tuple[str, int, float]]) -> dict[tuple[str, int], float]:
        best_first = sorted((unit(*u) for u in units), key=lambda m: -m.score)
        ranked = fuse(Evidence([best_first], [[]], [], []), fusion)
        assert [r.score for r in ranked] == sorted((r.score for r in ranked), reverse=True)
        return {(r.document_id, r.ordinal): r.score for r in ranked}

    if not found:
        return
    index = data.draw(st.integers(0, len(found) - 1))
    document, parent, score = found[index]
    raised = [*found[:index], (document, parent, score + 0.5), *found[index + 1 :]]
    assert ranking(raised)[document, parent] >= ranking(found)[document, parent] - 1e-9
