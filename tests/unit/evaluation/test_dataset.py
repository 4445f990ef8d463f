"""Sets are checked before work starts, and every fault is named with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.dataset import EvaluationSet, find_sets, load_set

CORPUS = [{"id": "d1", "title": "One", "text": "A short text."}, {"id": "d2", "text": "Another text."}]
QUERIES: list[dict[str, Any]] = [
    {"id": "q1", "text": "What?", "answers": ["short"]},
    {"id": "q2", "text": "Else?", "answerable": False, "scope_doc": "d2", "lang": "en"},
]
QRELS: list[dict[str, Any]] = [{"query_id": "q1", "doc_id": "d1", "relevance": 1, "spans": [[2, 7], [5, 12]]}]


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, default in (("corpus", CORPUS), ("queries", QUERIES), ("qrels", QRELS)):
        rows = files.get(name, default)
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def test_a_set_is_read_as_written(tmp_path: Path) -> None:
    given = load_set(write(tmp_path / "small"))
    assert given.name == "small"
    assert [d.id for d in given.documents] == ["d1", "d2"]
    first, second = given.questions
    assert (first.relevance, first.spans, first.answers) == ({"d1": 1}, {"d1": ((2, 12),)}, ("short",))
    assert first.judged
    assert (second.scope, second.answerable, second.language, second.judged) == ("d2", False, "en", False)


def test_packed_and_plain_files_are_the_same(tmp_path: Path) -> None:
    plain, packed = write(tmp_path / "a"), write(tmp_path / "b")
    for path in packed.iterdir():
        with gzip.open(path.with_suffix(".jsonl.gz"), "wt") as file:
            file.write(path.read_text())
        path.unlink()
    assert load_set(plain).questions == load_set(packed).questions
    assert find_sets(tmp_path) == [plain, packed]
    assert find_sets(packed) == [packed]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"corpus": [*CORPUS, CORPUS[0]]}, "corpus.jsonl:3: there is a document 'd1' already"),
        ({"queries": [*QUERIES, QUERIES[1]]}, "queries.jsonl:3: there is a query 'q2' already"),
        ({"qrels": [{**QRELS[0], "query_id": "q9"}]}, "qrels.jsonl:1: there is no query 'q9'"),
        ({"qrels": [{**QRELS[0], "doc_id": "d9"}]}, "qrels.jsonl:1: there is no document 'd9'"),
        (
            {"qrels": [{**QRELS[0], "spans": [[3, 99]]}]},
            r"qrels.jsonl:1: the span \[3, 99\] is out",
        ),
        ({"qrels": [{**QRELS[0], "spans": [[3, 3]]}]}, "out of bounds"),
        ({"qrels": [{**QRELS[0], "spans": [[1.5, 3]]}]}, r"is not \[start, end\)"),
        ({"qrels": [{**QRELS[0], "relevance": "1"}]}, "relevance is '1'"),
        ({"qrels": [{**QRELS[0], "relevance": 10**30}]}, "relevance is 10*; it must be at most 1,000"),
        ({"qrels": '{"relevance": 1%s}' % ("0" * 5_000)}, "qrels.jsonl:1: this line is not a JSON"),
        ({"corpus": '{"id": "d1", "text": "a \\ud800 b"}'}, r"corpus.jsonl:1: .ud800 alone is half"),
        ({"queries": [{**QUERIES[1], "scope_doc": ["d1"]}]}, r"scope_doc is \['d1'\]"),
        (
            {"corpus": [{"id": "d1", "file": "../bad/queries.jsonl"}]},
            "qrels.jsonl:1: spans need the text of 'd1' in the corpus, which names a file",
        ),
        ({"qrels": [QRELS[0], QRELS[0]]}, "qrels.jsonl:2: .* judged already"),
        ({"queries": [{"id": "q1", "text": " "}]}, "queries.jsonl:1: text is ' '"),
        ({"queries": [{**QUERIES[1], "scope_doc": "d7"}]}, "queries.jsonl:1: scope_doc 'd7' is no document"),
        ({"queries": [], "qrels": []}, "there are no queries"),
        ({"corpus": [], "queries": [], "qrels": []}, "the corpus is empty"),
        (
            {"corpus": '{"id": "d1", "text": "x"}\nnot json\n'},
            "corpus.jsonl:2: this line is not a JSON",
        ),
        ({"corpus": [{"id": "d1"}]}, "corpus.jsonl:1: there is neither text nor file"),
        ({"corpus": [{"id": "d1", "text": "", "file": "x.pdf"}]}, "corpus.jsonl:1: there is no file"),
        ({"queries": [{**QUERIES[0], "answers": "short"}]}, "answers is 'short'; it must be a list"),
        ({"queries": [{**QUERIES[0], "answerable": 1}]}, "answerable is 1"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path: Path, files: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        load_set(write(tmp_path / "bad", **files))


def test_all_faults_are_told_at_once_up_to_twenty(tmp_path: Path) -> None:
    qrels = [{**QRELS[0], "query_id": f"x{i}"} for i in range(30)]
    with pytest.raises(InvalidRequestError) as caught:
        load_set(write(tmp_path / "bad", qrels=qrels))
    assert caught.value.message.count("there is no query") == 20
    assert "and 10 more" in caught.value.message


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "bad")
    (folder / "qrels.jsonl").unlink()
    with pytest.raises(InvalidRequestError, match=r"qrels.jsonl: there is no such file"):
        load_set(folder)
    (folder / "qrels.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(InvalidRequestError, match=r"qrels.jsonl.gz:1: it cannot be read"):
        load_set(folder)
    (folder / "corpus.jsonl").unlink()
    assert find_sets(tmp_path) == [folder]  # a set that lacks its corpus is not passed over
    with pytest.raises(InvalidRequestError, match=r"corpus.jsonl: there is no such file"):
        load_set(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InvalidRequestError, match="holds no evaluation set"):
        find_sets(tmp_path)


def test_a_plain_and_a_packed_file_of_one_name_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "bad")
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.write("{}")
    with pytest.raises(
        InvalidRequestError, match=r"there are corpus.jsonl and corpus.jsonl.gz; keep one"
    ) as told:
        load_set(folder)
    assert "there is no document" not in told.value.message


def test_a_line_that_is_not_utf8_is_named_and_what_it_hides_is_not_held_against_others(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path / "bad", queries=[*QUERIES, {"id": "q3", "text": "Where?", "scope_doc": "d3"}])
    lines = [json.dumps(row).encode() for row in CORPUS]
    lines.append('{"id": "d3", "text": "Caf\xe9"}'.encode("latin-1"))
    (folder / "corpus.jsonl").write_bytes(b"\n".join(lines))
    qrels = [*QRELS, {"query_id": "q1", "doc_id": "d3", "relevance": 1}]
    (folder / "qrels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in qrels))
    with pytest.raises(InvalidRequestError) as told:
        load_set(folder)
    [problem] = told.value.message.splitlines()
    assert "corpus.jsonl:3: this line is not UTF-8 (0xe9 at byte 26)" in problem


def test_a_mark_of_byte_order_is_no_part_of_the_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    expected = load_set(folder)
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_set(folder) == expected


def test_a_sample_keeps_only_questions_that_can_be_answered(tmp_path: Path) -> None:
    queries = [{"id": f"q{i}", "text": "Why?"} for i in range(10)]
    qrels = [{"query_id": f"q{i}", "doc_id": f"d{1 + i % 2}", "relevance": 1} for i in range(10)]
    given = load_set(write(tmp_path / "set", queries=queries, qrels=qrels))
    first = given.sample(1, None)
    assert [q.id for q in first.questions] == ["q0", "q2", "q4", "q6", "q8"]
    assert given.sample(None, 99) == given


def test_a_sample_is_of_what_is_measured(tmp_path: Path) -> None:
    """Without answers, no question that has no relevant document, and none in one document without spans."""
    given = a_list(tmp_path, [{"judged": i % 3 > 0, "scoped": i % 3 == 2} for i in range(90)])
    assert len(given.sample(None, 30).measurable(answers=False)) == 30
    assert {int(q.id[1:]) % 3 for q in given.sample(None, 30).questions} == {1}
    answered = given.sample(None, 50, answers=True)
    assert len(answered.measurable(answers=True)) == 50
    assert {int(q.id[1:]) % 3 for q in answered.questions} == {0, 1, 2}


def test_a_sample_is_not_in_step_with_a_list_that_repeats_itself(tmp_path: Path) -> None:
    given = a_list(tmp_path, [{"judged": True}] * 17 * 20)
    drawn = [int(q.id[1:]) for q in given.sample(None, 20).questions]
    assert [i // 17 for i in drawn] == list(range(20))  # one a contract
    assert len({i % 17 for i in drawn}) > 8  # and not the same hypothesis of each
    assert given.sample(None, 20) == given.sample(None, 20)


def a_list(tmp_path: Path, rows: list[dict[str, bool]]) -> EvaluationSet:
    scopes = [{"scope_doc": "d1"} if row.get("scoped") else {} for row in rows]
    queries = [
        {"id": f"q{i}", "text": "Why?", "answerable": row["judged"], **scope}
        for i, (row, scope) in enumerate(zip(rows, scopes, strict=True))
    ]
    qrels = [{"query_id": f"q{i}", "doc_id": "d1", "relevance": int(r["judged"])} for i, r in enumerate(rows)]
    return load_set(write(tmp_path / "list", queries=queries, qrels=qrels))
