"""``longleaf eval`` from the command line, on a small set, without model weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_cli import Command, folder, longleaf  # noqa: F401 - fixtures

import api.evaluation
from pipeline.errors import EmbeddingError
from pipeline.retrieve import Findings, Retriever
from pipeline.types import Query

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
    assert doors["measures"]["refused"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 10}
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


def test_a_set_that_is_gone_fails_the_comparison(longleaf: Command, sets: Path, tmp_path: Path) -> None:  # noqa: F811
    both, one, other = (str(tmp_path / f"{name}.json") for name in ("both", "one", "other"))
    shutil.copytree(sets / "doors", sets / "gates")
    assert longleaf("eval", str(sets), "--out", both).code == 0
    assert longleaf("eval", str(sets / "doors"), "--questions", "4", "--out", one).code == 0
    gone = longleaf("eval", "--compare", both, one)
    assert gone.code == 1
    assert "doors: only the old report has 6 of its 10 questions." in gone.err
    assert "gates: only the old report has 10 of its 10 questions; nothing of it is compared." in gone.err
    assert longleaf("eval", "--compare", both, one, "--json").json["lost"] == ["gates"]
    assert longleaf("eval", "--compare", one, both).code == 0  # a new set is told, and no fault
    assert (
        longleaf("eval", str(sets / "doors"), "--cutoffs", "3", "--budgets", "50", "--out", other).code == 0
    )
    apart = longleaf("eval", "--compare", one, other)
    assert apart.code == 2
    assert "no measure in common. doors: only the old report has" in apart.err


@pytest.mark.parametrize("option", ["out", "markdown", "html", "generate"])
def test_a_place_that_cannot_be_written_is_told_before_any_work(
    longleaf: Command,  # noqa: F811
    sets: Path,
    tmp_path: Path,
    option: str,
) -> None:
    (tmp_path / "file").write_text("")
    places = [tmp_path / "file" / "new" / "x.json"] + [sets] * (option != "generate")
    for place in places:
        told = longleaf("eval", str(sets), f"--{option}", str(place))
        assert told.code == 2
        assert f"--{option} {str(place)!r} cannot be written" in told.err
        assert f"fix: Name another place with --{option}." in told.err
        assert not (tmp_path / "longleaf-data").exists()


def test_a_file_that_fails_in_the_end_costs_neither_the_results_nor_other_files(
    longleaf: Command,  # noqa: F811
    sets: Path,
    tmp_path: Path,
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = longleaf("eval", str(sets), "--out", "/dev/full", "--markdown", str(tmp_path / "a.md"))
    assert done.code == 1
    assert "| doors |" in done.out
    assert "Name another file with --out." in done.err
    assert "| doors |" in (tmp_path / "a.md").read_text()


def test_what_can_be_measured_is_counted(longleaf: Command, sets: Path) -> None:  # noqa: F811
    assert "questions can be measured" not in longleaf("eval", str(sets), "--questions", "10").err
    told = longleaf("eval", str(sets), "--questions", "11").err
    assert "doors: 10 of 11 questions can be measured; --answers asks more of them." in told
    (sets / "doors" / "qrels.jsonl").write_text('{"query_id": "q0", "doc_id": "d0", "relevance": 0}\n')
    done = longleaf("eval", str(sets))
    assert done.code == 2
    assert "no question can be measured" in done.err
    assert longleaf("eval", str(sets), "--answers").code == 0


def test_more_than_a_set_has_cannot_be_wanted(longleaf: Command, sets: Path) -> None:  # noqa: F811
    many = ("eval", str(sets), "--questions", "100")
    assert "doors: 10 of 11 questions can be measured" in longleaf(*many).err
    assert "questions can be measured" not in longleaf(*many, "--answers").err


WHITENED = ("--set", "embedder.name=whitened", "--set", "embedder.inner=hashing")


@pytest.mark.parametrize(
    "place", [(), ("--set", "embedder.statistics=null"), ("--set", "embedder.statistics=own")]
)
def test_what_an_embedder_learns_stays_in_the_evaluation(
    longleaf: Command,  # noqa: F811
    sets: Path,
    tmp_path: Path,
    place: tuple[str, ...],
) -> None:
    command = ("eval", str(sets), "--json", *WHITENED, *place)
    first, again = longleaf(*command), longleaf(*command)
    assert (first.code, again.code) == (0, 0), first.out
    assert quality(again.json) == quality(first.json)
    data = tmp_path / "longleaf-data"
    [kept] = (data / "evaluation").iterdir()  # ingested once
    assert list((kept / "embedder" / "whitened").glob("statistics*.npz"))
    assert not (tmp_path / "own").exists()
    assert not (data / "embedder").exists()
    assert "embedder.statistics" not in first.json["about"]["settings"]


def test_what_is_learnt_with_other_options_is_another_index(
    longleaf: Command,  # noqa: F811
    sets: Path,
    tmp_path: Path,
) -> None:
    for exponent in ("0.5", "1"):
        assert longleaf("eval", str(sets), *WHITENED, "--set", f"embedder.exponent={exponent}").code == 0
    assert len(list((tmp_path / "longleaf-data" / "evaluation").iterdir())) == 2


def test_rankings_are_as_deep_as_the_largest_cutoff(longleaf: Command, sets: Path) -> None:  # noqa: F811
    deep = longleaf("eval", str(sets), "--cutoffs", "5,300", "--budgets", "300", "--json").json
    assert deep["about"]["plan"]["depth"] == 300
    assert deep["sets"][0]["measures"]["R@300"]["mean"] == 1.0
    beyond = longleaf("eval", str(sets), "--cutoffs", "2000")
    assert beyond.code == 2
    assert "fix: Give cutoffs of at most 1000." in beyond.err
    shallow = longleaf("eval", str(sets), "--set", "retrieval.max_top_k=50")
    assert shallow.code == 2
    assert "--set retrieval.max_top_k=100" in shallow.err


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
    assert "Add --answers" in longleaf("eval", str(sets), "--only", "answer").err


def test_switches_that_do_not_apply_are_named_before_any_work(
    longleaf: Command,  # noqa: F811
    sets: Path,
    tmp_path: Path,
) -> None:
    none = longleaf("eval", str(sets), "--only", "late")  # of vectors by hashing
    assert none.code == 2
    assert "'no late chunking' does not apply: embedders plugin 'hashing' has no option" in none.err
    assert not (tmp_path / "longleaf-data").exists()
    settings = ("--set", "chunking.unit_tokens=100", "--set", "retrieval.unit_weight=1")
    plan = ("--questions", "2", "--cutoffs", "5", "--budgets", "300")
    some = longleaf("eval", str(sets), "--only", "granularity", *settings, *plan)
    assert some.code == 0
    assert "- passages of 64 tokens: unit_tokens=100 does not fit" in some.out
    assert "- units alone: It is what the settings say already." in some.out
    assert "| switch | set | nDCG@5, change | span_recall@300, change |" in some.out
    assert "| passages alone | doors |" in some.out
    assert "peak_memory" not in some.out


def test_a_switch_that_fails_does_not_cost_the_others(
    longleaf: Command,  # noqa: F811
    sets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = api.evaluation.ask

    def fails_once(given: Any, searcher: Any, *rest: Any, **options: Any) -> Any:
        if searcher._config.fusion == "rrf":
            raise EmbeddingError("The model has no such window.")
        return ask(given, searcher, *rest, **options)

    monkeypatch.setattr(api.evaluation, "ask", fails_once)
    done = longleaf("eval", str(sets), "--only", "fusion", "--questions", "2", "--json")
    assert done.code == 1
    assert done.json["left_out"] == {"plain RRF": "The model has no such window."}
    assert "weighted RRF" in {each["name"] for each in done.json["ablation"]}


def test_what_the_first_search_loads_is_not_timed(
    longleaf: Command,  # noqa: F811
    sets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    find = Retriever.find

    def noted(self: Retriever, query: Query) -> Findings:
        asked.append(query.text)
        return find(self, query)

    monkeypatch.setattr(Retriever, "find", noted)
    report = longleaf("eval", str(sets), "--json").json
    assert len(report["sets"][0]["questions"]) == 10
    assert len(asked) == 11
    assert asked[0] == asked[-1]


def test_a_set_is_made_of_plain_documents(
    longleaf: Command,  # noqa: F811
    folder: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = tmp_path / "made"
    done = longleaf("eval", str(folder), "--generate", str(made), "--each", "2", "--json")
    assert done.code == 0
    [report] = done.json["sets"]
    assert report["name"] == "made"
    assert {"needle", "passkey"} <= set(report["by"]["type"])
    assert report["measures"]["span_recall@1000"]["n"] == len(report["questions"])
    again = longleaf("eval", str(made), "--json")
    assert quality(again.json) == quality(done.json)
    monkeypatch.setattr(
        "api.question_sets.make_set", None
    )  # nothing is read before the place is known to be free
    never = longleaf("eval", str(folder), "--generate", str(made))
    assert never.code == 1
    assert f"longleaf eval {made}" in never.err  # never written over


def test_no_set_is_made_for_a_command_that_is_wrong(longleaf: Command, folder: Path, tmp_path: Path) -> None:  # noqa: F811
    made = tmp_path / "made"
    for wrong in (("--cutoffs", "abc"), ("--budgets", "0"), ("--only", "magic"), ("--out", str(tmp_path))):
        assert longleaf("eval", str(folder), "--generate", str(made), *wrong).code == 2
        assert not made.exists()
