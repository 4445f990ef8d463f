"""Passkeys by length: the measurement tells embedders apart, and the doctor reports it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import write_model

from api import embedder_doctor
from api.cli import build_app
from embedders import hashing, late_chunking, whitened
from pipeline import passkeys
from pipeline.chunk import ChunkConfig, chunk
from pipeline.encoder.text_encoder import TextEncoder
from pipeline.errors import InvalidRequestError, MissingDependencyError, StorageError
from pipeline.passkeys import Reach, effective_tokens, measure
from pipeline.types import Document

SMALL = ChunkConfig(64, 16, 4)
HASHING = hashing.build(hashing.Config(dim=256))


class Forgetful(hashing.HashingEmbedder):
    """Reads the first 100 tokens of a document and nothing else."""

    def embed_documents(self, documents, progress=None):
        found = super().embed_documents(documents, progress)
        for document, vectors in zip(documents, found, strict=True):
            late = np.array([unit.token_start >= 100 for unit in document.units])
            vectors.units[late] = vectors.units[0]
        return found


def test_units_find_a_key_at_any_length_and_a_mean_loses_it() -> None:
    told: list[int] = []
    found = list(measure(HASHING, [1024, 128], 12, SMALL, progress=told.append))
    assert [reach.tokens for reach in found] == [128, 1024]
    assert [reach.unit for reach in found] == [1, 1]
    assert found[1].document <= found[0].document
    assert sum(told) > 12 * (100 + 900)
    assert effective_tokens(found, "unit") == 1024


def test_a_forgetful_embedder_has_a_short_reach() -> None:
    found = list(measure(Forgetful(hashing.Config(dim=256)), [96, 2048], 12, SMALL))
    assert found[0].unit == 1
    assert found[1].unit < 0.5
    assert effective_tokens(found, "unit") == 96


def test_the_effective_window_ends_at_the_first_gap() -> None:
    shares = {256: 1.0, 512: 0.95, 1024: 0.5, 2048: 1.0}
    found = [Reach(n, 20, share, share, "", 1.0) for n, share in shares.items()]
    assert effective_tokens(found, "unit") == 512
    assert effective_tokens(found[2:], "document") == 0


@pytest.mark.parametrize(("lengths", "candidates"), [([], 5), ([32], 5), ([128], 1), ([128], 10_000)])
def test_what_cannot_be_measured_is_refused(lengths: list[int], candidates: int) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be measured"):
        measure(HASHING, lengths, candidates)  # nothing is embedded yet


def test_a_length_is_measured_once() -> None:
    assert [reach.tokens for reach in measure(HASHING, [128, 96, 128], 2, SMALL)] == [96, 128]


def longleaf(tmp_path: Path, *arguments: str) -> int:
    command = ["doctor", *arguments, "--data", str(tmp_path / "data")]
    return build_app()(command, prog_name="longleaf", standalone_mode=False)


def test_the_doctor_prints_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "reach.png"
    sizes = ["--lengths", "128,256", "--candidates", "4", "--set", "embedder.name=hashing"]
    sizes += ["--set", "chunking.unit_tokens=16", "--set", "chunking.unit_min_tokens=4"]
    assert longleaf(tmp_path, "embedder", *sizes, "--plot", str(picture)) == 0
    printed = capsys.readouterr().out
    assert "Effective window: 256 tokens by the best unit" in printed
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert longleaf(tmp_path, "embedder", *sizes, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [reach["unit"] for reach in said["reached"]] == [1, 1]
    assert said["effective_tokens"]["unit"] == 256


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["indexer"], "does not know 'indexer'"),
        (["embedder", "--lengths", "256,abc"], "--lengths is '256,abc', and 'abc' is no whole number"),
        (["embedder", "--lengths", "0,-5"], "texts of -5 tokens"),
        (["embedder", "--candidates", "0"], "Passkeys of 0 candidates"),
        (["--lengths", "256"], "--lengths is of the embedder"),
        (["embedder", "--plot", "reach.jpg"], "does not end in .png"),
        (["embedder", "--plot", "no/such/folder/reach.png"], "cannot be written to no/such/folder/reach.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_doctor_cannot_do_is_told_before_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert longleaf(tmp_path, *arguments, "--set", "embedder.name=hashing") in (1, 2)
    told = capsys.readouterr().err
    assert told.startswith("error: ") and said in told and "measured," not in told
    assert "\n  fix: " in told


def test_the_doctor_leaves_what_an_embedder_learns_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--lengths", "128", "--candidates", "4", "--json", "--set", "embedder.name=whitened"]
    sizes += ["--set", "embedder.inner=hashing", "--set", "chunking.unit_tokens=16"]
    kept = tmp_path / "data" / "embedder" / "whitened"

    def measured() -> dict[str, Any]:
        assert longleaf(tmp_path, "embedder", *sizes) == 0
        return json.loads(capsys.readouterr().out)

    assert "learnt from no documents yet" in measured()["notes"][0]
    assert not (tmp_path / "data").exists()
    learner = whitened.build(whitened.Config(inner="hashing", statistics=kept))
    text = "Ducks swim. The tenant pays the rent. A bridge was opened in the spring."
    learner.learn([chunk(Document("d", text), learner.encode(text), SMALL)])
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    found = measured()
    assert (found["notes"], found["embedder"]) == ([], str(learner.fingerprint))
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


def test_a_plot_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Reach(128, 4, 1.0, 1.0, "", 1.0)]
    with pytest.raises(StorageError, match="cannot be written"):
        embedder_doctor.plot(found, "x", tmp_path / "nowhere" / "x.png")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="matplotlib"):
        embedder_doctor.plot(found, "x", tmp_path / "x.png")


def test_number_formats_are_compared_and_short_reaches_told(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model", "jina_embeddings_v3", positions=128)
    exact, rough = (
        late_chunking.build(late_chunking.Config(model=str(path), dtype=dtype, positions="pi:2"))
        for dtype in ("float32", "bfloat16")
    )
    said = embedder_doctor.agreement(rough, exact, "bfloat16")
    assert "at least 0.99" in said or "at least 1.0" in said
    assert embedder_doctor.agreement(exact, exact, "float32").endswith("12 of 12 texts in the same order")
    assert isinstance(exact._inner.encoder, TextEncoder)
    stretched = late_chunking.build(late_chunking.Config(model=str(path), positions="ntk:64"))
    native = late_chunking.build(late_chunking.Config(model=str(path)))
    assert native.warning == ""
    assert "Men et al. 2024" in stretched.warning


def test_no_two_candidates_are_the_same_person() -> None:
    (found,) = measure(HASHING, [64], 280, SMALL)
    assert found.candidates == 280
    names = {f"{passkeys._FIRST[i % 20]} {passkeys._LAST[(i + 3 * (i // 20)) % 14]}" for i in range(280)}
    assert len(names) == 280
