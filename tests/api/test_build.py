from __future__ import annotations

import threading
from typing import Any

import pytest
from small_library import small_settings

from api.build import Longleaf, once, open_longleaf
from pipeline.errors import ConfigurationError, ModelNotFoundError, UnavailableError


def test_members_are_made_once_and_by_one_thread(tmp_path: Any) -> None:
    with open_longleaf(small_settings(tmp_path)) as longleaf:
        made: list[object] = []
        threads = [threading.Thread(target=lambda: made.append(longleaf.retriever)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 8
        assert len(set(map(id, made))) == 1


def test_nobody_waits_for_a_model_but_those_who_need_it(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def load(_: Longleaf) -> str:
        loading.set()
        assert loaded.wait(20)
        return "model"

    slow: once[str] = once(load)
    monkeypatch.setattr(Longleaf, "language_model", slow)
    with open_longleaf(small_settings(tmp_path)) as longleaf:
        thread = threading.Thread(target=lambda: longleaf.language_model)
        thread.start()
        assert loading.wait(20)
        assert longleaf.retriever
        assert thread.is_alive()
        loaded.set()
        thread.join()
        assert longleaf.language_model == "model"


def test_what_could_not_be_made_is_tried_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    def load(_: Longleaf) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ModelNotFoundError("not yet")
        return "model"

    second_time: once[str] = once(load)
    monkeypatch.setattr(Longleaf, "language_model", second_time)
    with open_longleaf(small_settings(tmp_path)) as longleaf:
        with pytest.raises(ModelNotFoundError):
            _ = longleaf.language_model
        assert longleaf.language_model == "model"


def test_no_language_model_is_said_so(tmp_path: Any) -> None:
    with open_longleaf(small_settings(tmp_path)) as longleaf, pytest.raises(ConfigurationError):
        _ = longleaf.language_model


def test_everything_lies_under_the_data_folder_and_is_let_go(tmp_path: Any) -> None:
    settings = small_settings(tmp_path)
    for _ in range(2):
        with open_longleaf(settings) as longleaf:
            longleaf.open_stores()
            longleaf.ingestor.recover()
            with (
                open_longleaf(settings) as second,
                pytest.raises(UnavailableError),
            ):
                second.ingestor.recover()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
