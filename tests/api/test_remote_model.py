"""A language model on another server, chosen by the settings."""

from __future__ import annotations

from api.build import open_longleaf
from api.doctor import examine
from api.sections import LanguageModelSettings, Settings
from pipeline.lm.remote import RemoteModel


def test_an_address_makes_the_model_a_remote_one(settings: Settings) -> None:
    chosen = LanguageModelSettings(spec="big", url="http://127.0.0.1:9/v1", window_tokens=4096)
    with open_longleaf(settings.model_copy(update={"language_model": chosen})) as longleaf:
        model = longleaf.language_model
        [check] = [check for check in examine(longleaf) if check.name == "language model"]
    assert isinstance(model, RemoteModel)
    assert (model.name, model.window_tokens) == ("big", 4096)
    assert check.detail == "big at http://127.0.0.1:9/v1, not asked now"
