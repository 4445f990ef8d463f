"""``longleaf eval`` from the command line, on a small set, without model weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import Command, folder, longleaf  # noqa: F401 - fixtures

WORDS = [
    "kestrel",
    "gneiss",
    "fjord",
    "lantern",
    "walnut",
    "copper",
    "mistral",
    "harbour",
    "violin",
    "saffron",
]


def sentence(word: str) -> str:
    return f"The {word} of the old town is kept behind the third door on the left."


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Ten documents, each with one sentence that answers a question, at different places."""
    folder = tmp_path / "sets" / "doors"  # noqa: F811
    folder.mkdir(parents=True)
    filler = "Nothing of interest happened on that day, and nobody remembered it later. "
    corpus, queries, qrels = [], [], []
    for i, word in enumerate(WORDS):
        before = filler * (3 * i)
        text = before + sentence(word) + " " + filler * (30 - 3 * i)
        corpus.append({"id": f"d{i}", "title": word, "text": text})
        queries.append(
            {"id": f"q{i}", "text": f"Where is the {word} kept?", "answers": ["behind the third door"]}
        )
        span = [len(before), len(before) + len(sentence(word))]
        qrels.append({"query_id": f"q{i}", "doc_id": f"d{i}", "relevance": 1, "spans": [span]})
    queries.append({"id": "q-none", "text": "Who wrote the constitution of Atlantis?", "answerable": False})
    for name, rows in (("corpus", corpus), ("queries", queries), ("qrels", qrels)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.parent


def quality(report: Any) -> Any:
    return [
        {key: each[key] for key in ("name", "measures", "by")}
        | {"q": [q["values"] for q in each["questions"]]}
        for each in report["sets"]
    ]


def test_a_set_is_measured_and_two_runs_agree(longleaf: Command, sets: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "reports" / "a.json"
    done = longleaf("eval", str(sets), "--out", str(out), "--html", str(tmp_path / "a.html"), "--answers")
    assert done.code == 0
    report = json.loads(out.read_text())
    [doors] = report["sets"]
    assert doors["measures"]["nDCG@10"]["n"] == 10
    assert doors["measures"]["nDCG@10"]["mean"] == 1.0
    assert doors["measures"]["span_recall@500"]["mean"] == 1.0
    assert doors["measures"]["abstained"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 1}
    assert set(doors["by"]["position"]) == {"beginning", "middle", "end"}
    assert doors["cost"]["ingestion_tokens_per_second"] > 0
    assert "span_recall@1000" in done.out
    page = (tmp_path / "a.html").read_text()
    assert "<svg" in page
    assert "doors" in page

    again = longleaf("eval", str(sets / "doors"), "--answers", "--json")
    assert quality(again.json) == quality(report)
    assert again.json["sets"][0]["cost"]["document_tokens"] == doors["cost"]["document_tokens"]
    assert len(list((tmp_path / "longleaf-data" / "evaluation").iterdir())) == 1  # ingested once


def test_a_worse_search_fails_the_comparison(longleaf: Command, sets: Path, tmp_path: Path) -> None:  # noqa: F811
    good, bad = str(tmp_path / "good.json"), str(tmp_path / "bad.json")
    assert longleaf("eval", str(sets), "--out", good).code == 0
    words = f"lexical.stop_words={json.dumps(WORDS)}"
    broken = ("--set", "retrieval.dense_weight=0", "--set", words)
    assert longleaf("eval", str(sets), "--out", bad, *broken).code == 0

    assert longleaf("eval", "--compare", good, good).code == 0
    worse = longleaf("eval", "--compare", good, bad, "--json")
    assert worse.code == 1
    assert {"doors"} == {d["set"] for d in worse.json["regressions"]}
    assert all(d["change"]["high"] < 0 for d in worse.json["regressions"])
    assert longleaf("eval", "--compare", bad, good).code == 0
    assert longleaf("eval", "--compare", good, bad, "--tolerance", "1").code == 0


def test_bad_input_is_told_before_any_work(longleaf: Command, sets: Path, tmp_path: Path) -> None:  # noqa: F811
    (sets / "doors" / "qrels.jsonl").write_text('{"query_id": "q0", "doc_id": "d77", "relevance": 1}\n')
    done = longleaf("eval", str(sets), "--json")
    assert done.code == 2
    assert "qrels.jsonl:1: there is no document 'd77'" in done.json["error"]["message"]
    assert not (tmp_path / "longleaf-data").exists()
    assert longleaf("eval").code == 2
    assert longleaf("eval", str(tmp_path / "nowhere")).code == 2
    assert longleaf("eval", str(sets), "--cutoffs", "1,x").code == 2
    assert longleaf("eval", "--compare", str(tmp_path / "no.json"), str(tmp_path / "no.json")).code == 2


def test_switches_are_tried_one_at_a_time(longleaf: Command, sets: Path, tmp_path: Path) -> None:  # noqa: F811
    files = {name: tmp_path / f"ablation.{name}" for name in ("json", "md", "html")}
    done = longleaf(
        *("eval", str(sets), "--ablate", "--only", "fusion", "--questions", "4", "--json"),
        *("--markdown", str(files["md"]), "--html", str(files["html"])),
    )
    assert done.code == 0
    tried = {each["name"]: each for each in done.json["ablation"]}
    assert {"words alone", "meaning alone", "plain RRF", "distribution"} <= tried.keys()
    found = {d["measure"]: d for d in tried["meaning alone"]["differences"]}
    [doors] = done.json["sets"]
    assert found["nDCG@10"]["old"] == doors["measures"]["nDCG@10"]["mean"]
    assert found["nDCG@10"]["change"]["n"] == 4
    assert "| plain RRF | doors |" in files["md"].read_text()
    assert files["html"].read_text().count("<svg") == 2
    assert len(list((tmp_path / "longleaf-data" / "evaluation").iterdir())) == 1  # fusion needs no new index
    assert longleaf("eval", str(sets), "--only", "magic").code == 2


def test_a_set_is_made_of_plain_documents(longleaf: Command, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    made = tmp_path / "made"
    done = longleaf("eval", str(folder), "--generate", str(made), "--each", "2", "--json")
    assert done.code == 0
    [report] = done.json["sets"]
    assert report["name"] == "made"
    assert {"needle", "passkey"} <= set(report["by"]["type"])
    assert report["measures"]["span_recall@1000"]["n"] == len(report["questions"])
    again = longleaf("eval", str(made), "--json")
    assert quality(again.json) == quality(done.json)
    assert longleaf("eval", str(folder), "--generate", str(made)).code == 1  # never written over
