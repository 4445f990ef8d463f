"""Plugins from elsewhere: the documented one runs, and what is none is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.build import open_longleaf
from api.meanings import meanings
from api.settings import load_settings
from pipeline import plugins
from pipeline.errors import ConfigurationError, MissingDependencyError
from pipeline.seams import Reranker
from pipeline.sources import Source
from pipeline.types import Query

PAGE = Path(__file__).parent.parent.parent / "docs" / "plugins.md"


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package named after the test, since modules are remembered."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / re.sub(r"\W", "_", tmp_path.name)
    folder.mkdir()
    return folder


def test_the_documented_plugin_runs(house: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [toml] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (house / "shortest.py").write_text(code, encoding="utf-8")
    Path("longleaf.toml").write_text(toml.replace("house.", f"{house.name}."), encoding="utf-8")
    settings = load_settings({"embedder.name": "hashing", "indexer.name": "exact"})
    assert settings.reranker.options == {"chars": 200}
    assert isinstance(plugins.load("rerankers", settings.reranker.name), Reranker)
    assert all(meanings(plugins.config_class("rerankers", settings.reranker.name)).values())
    with open_longleaf(settings) as longleaf:
        texts = [f"The lease of house {n} ends in March. {'It is long. ' * n}" for n in (12, 0, 5)]
        sources = [Source(name=f"{n}.txt", text=text) for n, text in enumerate(texts)]
        assert {result.status for result in longleaf.ingestor.ingest(sources)} == {"created"}
        hits = longleaf.retriever.search(Query("When does the lease end?")).hits
    assert len(hits) == 3
    assert [len(hit.text) for hit in hits] == sorted(len(hit.text) for hit in hits)
    assert all(hit.scores["shortest"] == hit.score for hit in hits)
    with pytest.raises(ConfigurationError, match=r"reranker\.chars \(command line\) is 0"):
        load_settings({"reranker.chars": 0})
    with pytest.raises(ConfigurationError, match=r"no setting reranker\.chrs") as caught:
        load_settings({"reranker.chrs": 1})
    assert "reranker.chars" in caught.value.remedy


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (None, ConfigurationError, r"no module '\w+\.plugin'"),
        ("import nothing_like_it", MissingDependencyError, "needs the package 'nothing_like_it'"),
        ("from pipeline.types import Nothing", ConfigurationError, "cannot be imported: ImportError"),
        ("def build(:", ConfigurationError, "cannot be imported: SyntaxError"),
        ("1 / 0", ConfigurationError, "cannot be imported: ZeroDivisionError"),
        ("def build(config): ...", ConfigurationError, "it has no Config"),
        ("", ConfigurationError, "it has no Config and no build"),
    ],
)
def test_what_is_no_plugin_is_told(house: Path, code: str | None, kind: type[Exception], told: str) -> None:
    name = f"{house.name}.plugin"
    if code is not None:
        (house / "plugin.py").write_text(code, encoding="utf-8")
    with pytest.raises(kind, match=told) as caught:
        plugins.load("embedders", name)
    assert "longleaf[" not in str(caught.value), "there is no extra for it"
    with pytest.raises(kind, match=rf"embedder\.name \(command line\): .*{told}"):
        load_settings({"embedder.name": name})


@pytest.mark.parametrize("name", [".", "..", "a..b", ".hashing", "/etc/passwd.x", "nowhere.at.all"])
def test_odd_names_are_told(name: str) -> None:
    with pytest.raises(ConfigurationError, match="There is no") as caught:
        plugins.load("embedders", name)
    assert "TypeError" not in caught.value.message


def test_a_package_that_build_needs_is_named(house: Path) -> None:
    lines = ["class Config:", "    model_fields = {}", "def build(config):", "    import nothing_like_that"]
    (house / "plugin.py").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(MissingDependencyError, match="'nothing_like_that'") as caught:
        plugins.load("embedders", f"{house.name}.plugin")
    assert "longleaf[" not in caught.value.remedy
