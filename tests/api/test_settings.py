from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.build import open_longleaf
from api.environment import RESERVED, variable
from api.reference import configuration_reference
from api.sections import PACKAGES, Settings
from api.settings import entries, load_settings, settings_table
from pipeline import plugins
from pipeline.errors import ConfigurationError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_need_nothing() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert settings.server.host == "127.0.0.1"


def test_each_layer_wins_over_the_one_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "longleaf.toml").write_text(
        'data = "a"\n[server]\nport = 1\nqueue = 2\nmax_answer_tokens = 3\n'
    )
    monkeypatch.setenv("LONGLEAF_SERVER__QUEUE", "20")
    monkeypatch.setenv("LONGLEAF_SERVER__MAX_ANSWER_TOKENS", "30")
    monkeypatch.setenv("LONGLEAF_DATA", "")  # as compose files write what is not set
    settings = load_settings({"server.max_answer_tokens": 300, "server.host": None})
    assert (settings.server.port, settings.server.queue, settings.server.max_answer_tokens) == (1, 20, 300)
    assert settings.data == Path("a")


def test_the_file_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.toml").write_text("[chunking]\npassage_tokens = 99\n")
    monkeypatch.setenv("LONGLEAF_CONFIG", str(tmp_path / "other.toml"))
    assert load_settings().chunking.passage_tokens == 99
    with pytest.raises(ConfigurationError, match=r"no configuration file 'nowhere.toml'"):
        load_settings(config=Path("nowhere.toml"))


def test_plugin_options_go_with_their_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "longleaf.toml").write_text('[embedder]\nname = "hashing"\ndim = 128\n')
    settings = load_settings()
    assert (settings.embedder.name, settings.embedder.options) == ("hashing", {"dim": 128})
    monkeypatch.setenv("LONGLEAF_EMBEDDER__DIM", "192")
    with open_longleaf(load_settings()) as longleaf:
        assert longleaf.embedder.fingerprint.dim == 192
    # The default plugin replaces the file's, whose options do not fit it and are dropped.
    monkeypatch.delenv("LONGLEAF_EMBEDDER__DIM")
    assert load_settings({"embedder.name": "late_chunking"}).embedder.options == {}


def test_options_without_a_name_are_the_default_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGLEAF_EMBEDDER__NAME", Settings().embedder.name)
    with pytest.raises(ConfigurationError, match="LONGLEAF_EMBEDDER__DIMM"):
        monkeypatch.setenv("LONGLEAF_EMBEDDER__DIMM", "1")
        load_settings()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("LONGLEAF_SERVER__PROT", "LONGLEAF_SERVER__PORT"),
        ("LONGLEAF_CHUNKNG__PASSAGE_TOKENS", "LONGLEAF_CHUNKING__PASSAGE_TOKENS"),
        ("LONGLEAF_DATTA", "LONGLEAF_DATA"),
        ("LONGLEAF_SERVER", ""),
    ],
)
def test_a_misspelt_variable_names_the_nearest(
    name: str, nearest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError, match=name) as caught:
        load_settings()
    assert nearest in caught.value.remedy


def test_a_misspelt_key_of_the_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "longleaf.toml").write_text("[server]\nprot = 1\n")
    with pytest.raises(ConfigurationError, match=r"server\.prot \(longleaf\.toml\)") as caught:
        load_settings()
    assert "server.port" in caught.value.remedy


@pytest.mark.parametrize(
    ("key", "value"),
    [("server.port", "abc"), ("server.port", "70000"), ("chunking.passage_tokens", "many"), ("data", "[1]")],
)
def test_a_wrong_value_names_where_it_came_from(
    key: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(key), value)
    with pytest.raises(ConfigurationError, match=variable(key)):
        load_settings()


def test_limits_of_a_module_hold_here_too() -> None:
    with pytest.raises(ConfigurationError, match="passage_tokens"):
        load_settings({"chunking.passage_tokens": 1})


def test_broken_toml_is_told(tmp_path: Path) -> None:
    (tmp_path / "longleaf.toml").write_text("[server\n")
    with pytest.raises(ConfigurationError, match=r"longleaf\.toml"):
        load_settings()


def test_nothing_can_be_changed_afterwards() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.data = Path("b")  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.server.port = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.chunking.passage_tokens = 1  # type: ignore[misc]


def test_every_key_can_be_set_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's variables are the ones that are read: each, set to its default, changes nothing."""
    for key, default, _ in entries(Settings()):
        if isinstance(default, str | int | float) and not isinstance(default, bool):
            monkeypatch.setenv(variable(key), str(default))
    load_settings()


def test_every_key_has_a_meaning() -> None:
    assert not [key for key, _, _, meaning in settings_table() if len(meaning.split()) < 2]


def test_the_documentation_is_in_step() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == configuration_reference(), "run: python -m api.reference > docs/configuration.md"


def test_every_plugin_s_options_are_documented() -> None:
    page = configuration_reference()
    for section, package in PACKAGES.items():
        for name in plugins.names(package):
            assert f'`{section}.name = "{name}"`' in page or name == getattr(Settings(), section).name
            for option in type(plugins.configure(package, name)).model_fields:
                assert f"`{section}.{option}`" in page


def test_an_option_of_the_default_plugin_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGLEAF_EMBEDDER__OVERLAP_TOKENS", "40")
    chosen = load_settings().embedder
    assert (chosen.name, str(chosen.options["overlap_tokens"])) == ("late_chunking", "40")


def test_what_the_project_calls_its_other_variables_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = (ROOT / name for name in (".env.example", "docker-compose.yml", "Dockerfile", "Makefile"))
    shown = [path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh")]
    files = {*deployed, *shown, *(ROOT / "tests").rglob("*.py")} - {Path(__file__)}  # which misspells some
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"""(?:^|[\s"'{])(LONGLEAF_[A-Z]+(?:_[A-Z]+)*)(?![A-Z_])""", text, re.MULTILINE))
    assert {"LONGLEAF_BIND", "LONGLEAF_URL", "LONGLEAF_RELIABILITY"} <= named
    settings = {variable(key) for key, _, _ in entries(Settings())}
    assert named - settings == RESERVED.keys() - {"LONGLEAF_CONFIG"}
    for name in named - settings:
        monkeypatch.setenv(name, "8000")
    assert load_settings() == Settings()


def test_what_kubernetes_says_of_its_services_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("LONGLEAF", "LONGLEAF_API_2"):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.11")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", "8000")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_HTTP", "8000")
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.11:8000")
        monkeypatch.setenv(f"{service}_PORT_8000_TCP", "tcp://10.0.0.11:8000")
        for fact in ("PROTO", "PORT", "ADDR"):
            monkeypatch.setenv(f"{service}_PORT_8000_TCP_{fact}", "x")
    assert load_settings() == Settings()
    monkeypatch.setenv("LONGLEAF_SERVER_PORT", "9000")
    with pytest.raises(ConfigurationError, match="LONGLEAF_SERVER_PORT") as caught:
        load_settings()
    assert "LONGLEAF_SERVER__PORT" in caught.value.remedy


@pytest.mark.parametrize("names", [("DATABASE_URL", "LEDGER__URL"), ("LEDGER__URL", "DATABASE_URL")])
def test_two_names_of_one_setting_must_agree(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in names:
        monkeypatch.setenv(f"LONGLEAF_{name}", "postgresql://u:secret@here/a")
    url = load_settings().ledger.url
    assert url is not None
    assert url.get_secret_value() == "postgresql://u:secret@here/a"
    monkeypatch.setenv(f"LONGLEAF_{names[0]}", "postgresql://u:secret@there/b")
    with pytest.raises(ConfigurationError, match=r"LONGLEAF_\w+ and LONGLEAF_\w+ both set") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ('[embedder]\nname = ["x"]\ndim = 3', r"embedder\.name \(longleaf\.toml\) is \['x'\]: .*string"),
        ('[embedder]\nname = "hashin"', r"embedder\.name \(longleaf\.toml\): .*no embedders plugin 'hashin'"),
        ('[embedder]\nname = "hashing"\ndim = "abc"', r"embedder\.dim \(longleaf\.toml\) is 'abc'"),
        (
            '[indexer]\nname = "qdrant"\nread_consistency = "few"',
            r"indexer\.read_consistency \(longleaf\.toml\) is 'few'",
        ),
        (
            "[quotas.tenants.acme]\ndocuments = -1",
            r"quotas\.tenants \(longleaf\.toml\), at acme\.documents, is -1: .*greater",
        ),
        ('[fetching]\nports = [80, "x"]', r"fetching\.ports \(longleaf\.toml\), at 1, is 'x'"),
        ('embedder = "x"', r"embedder \(longleaf\.toml\) is 'x'"),
    ],
)
def test_a_wrong_value_inside_names_its_place(toml: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "longleaf.toml").write_text(toml)
    with pytest.raises(ConfigurationError, match=told):
        load_settings()


def test_a_plugin_s_options_name_their_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "longleaf.toml").write_text('[embedder]\nname = "hashing"\n')
    monkeypatch.setenv("LONGLEAF_EMBEDDER__DIM", "65")
    with pytest.raises(ConfigurationError, match=r"LONGLEAF_EMBEDDER__DIM is '65': .*multiple of 64"):
        load_settings()
    with pytest.raises(ConfigurationError, match=r"embedder\.dim \(command line\) is 1: "):
        load_settings({"embedder.dim": 1})


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "longleaf.toml").write_bytes(b"\xef\xbb\xbf[server]\nport = 1\n")
    assert load_settings().server.port == 1


def test_a_section_over_a_value_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "longleaf.toml").write_text('embedder = "hashing"\n')
    monkeypatch.setenv("LONGLEAF_EMBEDDER__OVERLAP_TOKENS", "3")
    with pytest.raises(ConfigurationError, match=r"no setting embedder \(longleaf\.toml\)"):
        load_settings()
