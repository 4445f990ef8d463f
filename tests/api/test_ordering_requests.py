"""Orders through the command line and HTTP, and ``longleaf calibrate lm``, with a tiny language model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_library import DOCUMENTS, client_of, fill, small_settings
from starlette.testclient import TestClient

from api.cli import main
from api.sections import LanguageModelSettings, PluginChoice
from pipeline.errors import ModelError
from pipeline.lm import calibration as stored
from pipeline.lm.calibration import Calibration, Fused
from pipeline.lm.model import load
from pipeline.lm.signals import Signal

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "lm"))
from tiny_networks import make_network, make_tokenizer

QUESTION = {"query": "What does the tenant of the mill pay to the owner?", "mode": "composed"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("lm") / "tiny"
    make_network("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def service(model, tmp_path_factory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("service")
    settings = small_settings(root)
    answer = settings.answer.__class__(found_threshold=0.0)
    chosen = LanguageModelSettings(spec=model, threads=1)
    changed = settings.model_copy(update={"language_model": chosen, "answer": answer})
    with client_of(changed) as client:
        fill(client)
        yield client


def ask(client, **changes):
    return client.post("/v1/collections/books/answer", json={**QUESTION, "max_tokens": 4, **changes})


@pytest.mark.parametrize("order", ["auto", "edges", "attention_sorting", "found_in_the_middle"])
def test_the_answer_shows_the_order_before_and_after_with_scores_and_cost(service, order):
    response = ask(service, order=order)
    assert response.status_code == 200, response.text
    ordering = response.json()["ordering"]
    assert ordering["asked"] == order
    assert sorted(ordering["before"]) == sorted(ordering["after"])
    assert len(ordering["before"]) > 1
    assert set(ordering["scores"]) == set(ordering["after"])
    looked = order in ("attention_sorting", "found_in_the_middle")
    assert (ordering["readings"] > 0, ordering["seconds"] > 0) == (looked, looked)
    if looked:
        assert all(order in scores for scores in ordering["scores"].values())


def test_an_extractive_answer_has_no_order(service):
    assert ask(service, mode="extractive").json()["ordering"] is None


def test_attention_that_cannot_be_moved_costs_no_answer(service, monkeypatch):
    """The prompt is looked at only when the model begins to write: it may turn out to have no such places."""

    monkeypatch.setattr("pipeline.lm.moved_attention.address", refused_address)
    response = ask(service, reweigh="score")
    assert response.status_code == 200, response.text
    assert any("not moved" in said and "rewrites" in said for said in response.json()["degraded"])
    assert response.json()["ordering"].get("shares", {}) == {}


@pytest.mark.parametrize("reweigh", ["score", "found_in_the_middle"])
def test_attention_is_moved_instead_of_passages(service, reweigh):
    plain = ask(service, order="document", max_tokens=24).json()
    moved = ask(service, order="document", max_tokens=24, reweigh=reweigh).json()
    assert moved["ordering"]["after"] == plain["ordering"]["after"]
    assert plain["ordering"]["shares"] == {}
    assert set(moved["ordering"]["shares"]) == set(moved["ordering"]["after"])
    assert sum(moved["ordering"]["shares"].values()) == pytest.approx(1, abs=1e-4)
    assert moved["ordering"]["readings"] == (reweigh == "found_in_the_middle")
    assert not any("not moved" in said for said in moved["degraded"])
    # The ordinary answer is as before: nothing that was moved is begun with.
    assert ask(service, order="document", max_tokens=24).json()["statements"] == plain["statements"]


def test_attention_is_biased_by_what_the_search_found(service):
    plain = ask(service, order="document", max_tokens=24).json()
    moved = ask(service, order="document", max_tokens=24, reweigh="bias").json()
    assert plain["ordering"]["biases"] == {}
    given, scores = moved["ordering"]["biases"], moved["ordering"]["scores"]
    assert list(given) == moved["ordering"]["after"] == plain["ordering"]["after"]
    mean = sum(scores[name]["search"] for name in given) / len(given)
    for name, bias in given.items():
        assert bias == pytest.approx(0.25 + 5 * (scores[name]["search"] - mean), abs=1e-4)
    assert moved["ordering"]["readings"] == 0
    assert ask(service, order="document", max_tokens=24).json()["statements"] == plain["statements"]


def test_auto_biases_a_model_that_was_found_to_want_it_and_never_complains(model, tmp_path, monkeypatch):
    settings = small_settings(tmp_path)
    changed = settings.model_copy(
        update={
            "language_model": LanguageModelSettings(spec=model, threads=1),
            "answer": settings.answer.__class__(found_threshold=0.0),
        }
    )
    with client_of(changed) as client:
        fill(client)
        loaded, signal = load(model), Fused(Signal("question"), 0.5)
        known = Calibration(
            loaded.name, loaded.revision, "reverse", "reverse", signal, signal, bias_pays=True
        )
        stored.write(known, changed.data / "calibrations")
        made = ask(client).json()
        assert set(made["ordering"]["biases"]) == set(made["ordering"]["after"])
        for wish in ({"context_strength": 1}, {"context": "ape"}, {"long_tokens": 400}, {"reweigh": "off"}):
            other = ask(client, **wish).json()
            assert not any("not moved" in each for each in other["degraded"]), wish
            assert not (other["ordering"] or {}).get("biases"), wish
        monkeypatch.setattr("pipeline.lm.moved_attention.address", refused_address)
        assert not any("not moved" in each for each in ask(client).json()["degraded"])
        assert any("not moved" in each for each in ask(client, reweigh="bias").json()["degraded"])


def refused_address(*_):
    raise ModelError("The chat template rewrites the text.", remedy="Leave attention as it is.")


def test_where_attention_cannot_be_moved_the_answer_says_so(service):
    for wish in ({"context_strength": 1}, {"context": "ape"}, {"long_tokens": 400}):
        said = ask(service, reweigh="score", **wish).json()["degraded"]
        expected = (
            "no shares of attention" if "context" in wish else "attention was not moved between passages"
        )
        assert any(expected in each for each in said), wish


def test_attention_to_cached_passages_is_biased_too(service):
    wish = {"context": "ape", "attended": 2, "max_tokens": 8}
    plain, moved = (ask(service, reweigh=how, **wish).json() for how in ("off", "bias"))
    got = [
        {p["chunk_id"]: p["scores"]["attention"] for p in passages if "attention" in p["scores"]}
        for passages in (plain["context"]["passages"], moved["context"]["passages"])
    ]
    assert len(got[0]) == 2
    assert set(got[0]) == set(got[1])
    assert any(abs(got[0][name] - got[1][name]) > 1e-6 for name in got[0])
    assert moved["degraded"] == plain["degraded"]


def test_compression_shortens_the_prompt_and_citations_keep_to_the_documents(service):
    whole, short = ask(service, mode="auto"), ask(service, mode="auto", compress_tokens=60)
    assert short.json()["usage"]["prompt_tokens"] < whole.json()["usage"]["prompt_tokens"]
    quotes = [c for statement in short.json()["statements"] for c in statement["citations"]]
    assert quotes
    documents = {text["title"]: text for text in DOCUMENTS}
    for citation in quotes:
        text = documents[citation["title"]]["text"]
        assert text[citation["start"] : citation["end"]] == citation["quote"]


def test_context_strength_reaches_the_model(service):
    answers = [ask(service, context_strength=strength).json() for strength in (0, 3)]
    said = [[statement["text"] for statement in answer["statements"]] for answer in answers]
    assert answers[0]["usage"]["completion_tokens"] > 0
    assert said[0] != said[1] or answers[0]["usage"] == answers[1]["usage"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": "sideways"},
        {"reweigh": "loud"},
        {"compress_tokens": 0},
        {"context_strength": -1},
        {"context_strength": 9},
    ],
)
def test_senseless_wishes_are_refused(service, wrong):
    response = ask(service, **wrong)
    assert response.status_code == 422
    assert next(iter(wrong)) in response.text


def test_hits_are_reranked_with_their_scores(model, tmp_path):
    settings = small_settings(tmp_path).model_copy(
        update={
            "language_model": LanguageModelSettings(spec=model, threads=1),
            "reranker": PluginChoice(name="found_in_the_middle"),
        }
    )
    with client_of(settings) as client:
        fill(client)
        found = client.post("/v1/collections/books/search", json={"query": QUESTION["query"]}).json()
    assert found["timings"]["rerank"] > 0
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert all("found_in_the_middle" in hit["scores"] for hit in found["hits"])


def test_a_reranker_of_the_settings_that_does_not_exist_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGLEAF_RERANKER__NAME", "cross_encode")
    assert run(capsys, "search", "x")[0] != 0


def run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


@pytest.fixture
def place(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("EMBEDDER__NAME", "hashing"),
        ("INDEXER__NAME", "exact"),
        ("LANGUAGE_MODEL__SPEC", model),
        ("LANGUAGE_MODEL__THREADS", "1"),
        ("ANSWER__FOUND_THRESHOLD", "0"),
    ):
        monkeypatch.setenv(f"LONGLEAF_{name}", value)
    return tmp_path


def test_calibrating_stores_a_table_and_a_plot_that_later_answers_use(place, capsys):
    code, out, err = run(
        capsys, "calibrate", "lm", "--questions", "8", "--passages", "3", "--plot", "bias.png"
    )
    assert code == 0, err
    assert "gold passage at" in out
    assert "auto:" in out
    assert (place / "bias.png").read_bytes().startswith(b"\x89PNG")
    cached, stored = sorted((place / "longleaf-data" / "calibrations").glob("*.json"), key=str)
    assert "cached contexts: temperature" in out
    assert json.loads(cached.read_text())["questions"] == 4
    found = json.loads(stored.read_text())
    assert found["pairs"] == "made-up passages"
    (place / "a.txt").write_text("The lease ends in March. Rent is due monthly.\n\nThe keys are blue. " * 3)
    (place / "b.txt").write_text("A whale is a mammal that sings. It has keys to the sea. " * 3)
    assert run(capsys, "ingest", "a.txt", "b.txt")[0] == 0
    code, out, err = run(
        capsys, "ask", "When does the lease end?", "--mode", "composed", "--order", "auto", "--json",
        "--max-tokens", "4",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["ordering"]["used"] == found["auto"]
    code, _, err = run(
        capsys, "ask", "When does the lease end?", "--order", "found_in_the_middle", "--max-tokens", "4"
    )
    assert code == 0
    assert "order found_in_the_middle" in err
    code, _, err = run(capsys, "ask", "When does the lease end?", "--reweigh", "score", "--max-tokens", "4")
    assert code == 0
    assert "attention by passage" in err
    code, _, err = run(capsys, "ask", "When does the lease end?", "--reweigh", "bias", "--max-tokens", "4")
    assert code == 0
    assert "bias of attention by passage, as read: " in err


def test_calibrating_with_given_pairs_and_without_a_model(place, capsys, monkeypatch):
    (place / "bad.jsonl").write_text('{"question": 1}')
    code, _, err = run(capsys, "calibrate", "lm", "--pairs", "bad.jsonl")
    assert code != 0
    assert "Line 1" in err
    monkeypatch.setenv("LONGLEAF_LANGUAGE_MODEL__SPEC", "none")
    code, _, err = run(capsys, "calibrate", "lm")
    assert code != 0
    assert "language_model.spec" in err
