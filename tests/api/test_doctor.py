"""The doctor refuses what ingestion and answers would refuse, without loading weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from postgres import Cluster
from pydantic import SecretStr
from tiny_models import write_model

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "lm"))

from tiny_networks import make_network, make_tokenizer

from api.build import open_longleaf
from api.doctor import Check, examine
from api.sections import LanguageModelSettings, LedgerSettings, PluginChoice, Settings
from pipeline.encoder import exported
from pipeline.errors import LongleafError
from pipeline.ingest import Source


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("encoder") / "bert", positions=512)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder") / "llama"
    make_network("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def finding(settings: Settings, name: str) -> Check:
    with open_longleaf(settings) as longleaf:
        [found] = [check for check in examine(longleaf) if check.name == name]
    return found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ""),
        ({"device": "tpu"}, "The device 'tpu' cannot be used"),
        ({"device": "meta"}, "The device 'meta' cannot be used"),
        ({"positions": "pi:99999"}, "'pi:99999' would stretch 512"),
        ({"window_tokens": 513}, "window_tokens=513 exceeds the 512"),
        ({"backend": "openvino"}, "needs the package 'no_such_runtime'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "inside"])
def test_an_embedder_that_cannot_work_is_told(
    tmp_path: Path,
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    said: str,
    wrapped: bool,
) -> None:
    monkeypatch.setitem(exported._PACKAGES, "openvino", ("no_such_runtime",))
    inner = {"model": str(encoder), **options}
    chosen = {"name": "centred", "options": inner} if wrapped else {"name": "late_chunking", **inner}
    settings = Settings(data=tmp_path / "data", embedder=PluginChoice(**chosen))
    found = finding(settings, "embedder")
    assert found.state == ("missing" if said else "ok")
    assert said in found.detail
    assert bool(found.remedy) == bool(said)
    if said:
        with open_longleaf(settings) as longleaf, pytest.raises(LongleafError) as raised:
            _ = longleaf.embedder
        assert raised.value.message == found.detail
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ""),
        ({"positions": "yarn:4", "window_tokens": 8192}, ""),
        ({"window_tokens": 2048}, ""),
        ({"device": "tpu"}, "The device 'tpu' cannot be used"),
        ({"positions": "grouped:4"}, "needs absolute positions"),
        ({"positions": "pi:0.5"}, "below 1"),
        ({"positions": "dynamic_ntk:2"}, "depends on the length of the whole text"),
        ({"window_tokens": 4096}, "reads 2,048"),
        ({"positions": "yarn:2", "window_tokens": 4097}, "exceeds the 4096"),
    ],
    ids=str,
)
def test_a_language_model_that_would_be_refused_is_told(
    tmp_path: Path, decoder: Path, options: dict[str, Any], said: str
) -> None:
    settings = Settings(
        data=tmp_path / "data",
        embedder=PluginChoice(name="hashing"),
        language_model=LanguageModelSettings(spec=str(decoder), **options),
    )
    found = finding(settings, "language model")
    assert found.state == ("missing" if said else "ok")
    assert said in found.detail
    with open_longleaf(settings) as longleaf:
        if not said:
            assert longleaf.language_model.window_tokens == options.get("window_tokens", 2048)
            return
        with pytest.raises(LongleafError) as raised:
            _ = longleaf.language_model
    assert (raised.value.message, raised.value.remedy) == (found.detail, found.remedy)


def test_a_database_is_looked_into_where_there_is_no_folder(tmp_path: Path, postgres: Cluster) -> None:
    """As on a machine that has not worked with it yet."""
    chosen: dict[str, Any] = {
        "embedder": PluginChoice(name="hashing"),
        "indexer": PluginChoice(name="exact"),
        "ledger": LedgerSettings(url=SecretStr(postgres.database())),
    }
    with open_longleaf(Settings(data=tmp_path / "one", **chosen)) as longleaf:
        list(longleaf.ingestor.ingest([Source("otter.txt", b"The otter lives by the river.")]))
    found = finding(Settings(data=tmp_path / "other", **chosen), "ledger")
    assert (found.state, found.detail) == ("ok", "1 collections: default")
