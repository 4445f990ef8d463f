"""Questions and passages to calibrate with: read, made up, and put among distractors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.errors import InvalidRequestError, NotFoundError
from pipeline.lm.pairs import Pair, made_up, read_pairs, trials


def overlap(questions, passages):
    """A retriever that counts words in common."""
    return np.array(
        [[len(set(q.lower().split()) & set(p.lower().split())) for p in passages] for q in questions],
        np.float32,
    )


def test_made_up_passages_hold_their_answers_and_tell_them_apart():
    pairs = made_up(400, seed=3)
    assert pairs == made_up(400, seed=3)
    assert pairs != made_up(400, seed=4)
    assert all(pair.answer in pair.passage for pair in pairs)
    assert len({pair.question for pair in pairs}) == len({pair.passage for pair in pairs}) == 400
    assert {pair.question.split(" {")[0].split()[0] for pair in pairs} == {"In", "Which", "What"}


def test_trials_have_one_passage_with_the_answer():
    asked = trials(made_up(200), overlap, count=20, passages=6)
    assert len(asked) == 20
    for trial in asked:
        assert len(trial.passages) == len({hit.chunk_id for hit in trial.passages}) == 6
        assert [trial.answer in hit.text for hit in trial.passages] == [n == trial.gold for n in range(6)]
        assert [hit.chunk_id for hit in trial.at(4)][4] == trial.passages[trial.gold].chunk_id
    assert asked == trials(made_up(200), overlap, count=20, passages=6)


def test_every_second_question_gets_the_nearest_distractors():
    pairs = made_up(200)
    asked = trials(pairs, overlap, count=20, passages=6)
    hard = np.mean([[hit.score for hit in t.passages[1:]] for t in asked[1::2]])
    easy = np.mean([[hit.score for hit in t.passages[1:]] for t in asked[::2]])
    assert hard > easy


@pytest.mark.parametrize(("count", "passages"), [(30, 4), (8, 30)])
def test_too_few_pairs_are_said_with_the_numbers(count, passages):
    with pytest.raises(InvalidRequestError, match=r"20 pairs with 20 passages"):
        trials(made_up(20), overlap, count=count, passages=passages)


def test_pairs_that_all_hold_the_answer_are_refused():
    same = [Pair(f"Q{n}?", "yes", f"It says yes {n}.") for n in range(20)]
    with pytest.raises(InvalidRequestError, match="'yes'"):
        trials(same, overlap, count=8, passages=3)


def test_pairs_are_read_from_lines(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"question": "Wer?", "answer": "Ada", "passage": "Ada war es.", "title": "T"},
        {"question": "?", "answer": "b", "passage": "c", "extra": 1},
    ]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n", "utf-8")
    assert read_pairs(path) == [Pair("Wer?", "Ada", "Ada war es.", "T"), Pair("?", "b", "c")]


def test_a_line_ends_where_json_lines_end(tmp_path):
    odd = "one\u2028two\u0085three"
    line = json.dumps({"question": odd, "answer": "b", "passage": "c"}, ensure_ascii=False)
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(f"{line}\r\n{line}\n".encode())
    assert read_pairs(path) == [Pair(odd, "b", "c")] * 2


@pytest.mark.parametrize(
    "line", ["{", "[]", '"text"', '{"question": "a"}', '{"question": "a", "answer": " ", "passage": "c"}',
             '{"question": 1, "answer": "b", "passage": "c"}', "[" * 10_000],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, line):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"question": "a", "answer": "b", "passage": "c"}\n' + line)
    with pytest.raises(InvalidRequestError, match=r"Line 2 of .*pairs\.jsonl"):
        read_pairs(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="nowhere"):
        read_pairs(tmp_path / "nowhere.jsonl")
