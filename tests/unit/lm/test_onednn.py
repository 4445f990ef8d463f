"""Linear layers whose products are computed by oneDNN."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

from pipeline import machine, onednn
from pipeline.lm.loading import load_network
from pipeline.lm.model import load
from pipeline.onednn import OneDnnLinear, linear, speed_up

HERE = torch.backends.mkldnn.is_available()
pytestmark = pytest.mark.skipif(not HERE, reason="torch was built without oneDNN")


@pytest.fixture
def processor_of(monkeypatch):
    def make(maker: str) -> None:
        monkeypatch.setattr(machine, "processor_maker", lambda: maker)
        onednn.pays.cache_clear()

    yield make
    monkeypatch.undo()
    onednn.pays.cache_clear()


@pytest.fixture
def on_amd(processor_of):
    processor_of("AuthenticAMD")


@pytest.fixture
def stock_is_gone(monkeypatch):
    """Whoever asks for torch's own product fails."""
    monkeypatch.setattr(onednn.F, "linear", None)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(48,), (1, 48), (1, 1, 48), (2, 7, 48), (300, 48), (1, 0, 48)])
def test_products_equal_those_of_torch(on_amd, shape, bias, monkeypatch):
    torch.manual_seed(0)
    stock = nn.Linear(48, 20, bias=bias)
    with torch.inference_mode():
        wanted = stock(states := torch.randn(shape))
        monkeypatch.setattr(onednn.F, "linear", None)
        found = linear(states, stock.weight, stock.bias)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_other_strides_give_the_same(on_amd, stock_is_gone):
    weight, states = torch.randn(48, 20).T, torch.randn(3, 96)[:, ::2]
    with torch.inference_mode():
        found = linear(states, weight)
    torch.testing.assert_close(found, states @ weight.T, atol=1e-5, rtol=1e-5)


def test_what_learns_is_computed_by_torch(on_amd):
    layer = nn.Linear(8, 4)
    linear(torch.ones(2, 8), layer.weight, layer.bias).sum().backward()
    torch.testing.assert_close(layer.weight.grad, torch.full((4, 8), 2.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_numbers_are_computed_by_torch(on_amd, dtype):
    layer = nn.Linear(8, 4, dtype=dtype)
    with torch.inference_mode():
        assert linear(torch.ones(2, 8, dtype=dtype), layer.weight, layer.bias).dtype == dtype


def test_weights_stay_where_they_are(on_amd, stock_is_gone):
    network = nn.Sequential(nn.Linear(8, 8), nn.Embedding(8, 8))
    network[0].weight = network[1].weight  # tied, as those of many language models
    speed_up(network)
    assert type(network[0]) is OneDnnLinear
    assert network[0].weight is network[1].weight
    assert set(network.state_dict()) == {"0.weight", "0.bias", "1.weight"}
    with torch.inference_mode():
        assert network[0](torch.ones(2, 8)).shape == (2, 8)


class Doubled(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(8, 8, dtype=torch.bfloat16), nn.Linear(8, 8, device="meta"), Doubled(8, 8)],
    ids=["bfloat16", "another device", "another forward"],
)
def test_other_layers_are_left_alone(on_amd, layer):
    before = type(layer)
    speed_up(nn.Sequential(layer))
    assert type(layer) is before


@pytest.mark.parametrize("maker", ["GenuineIntel", ""])
def test_on_other_processors_nothing_changes(processor_of, monkeypatch, maker):
    processor_of(maker)
    network = nn.Sequential(nn.Linear(8, 8))
    speed_up(network)
    assert type(network[0]) is nn.Linear
    monkeypatch.setattr(onednn.F, "linear", lambda *parts: "torch")
    with torch.inference_mode():
        assert linear(torch.ones(1, 8), torch.ones(8, 8)) == "torch"


def test_costs_of_passes_are_measured_anew_where_layers_change(model_folder, processor_of, tmp_path):
    names = set()
    for maker in ("AuthenticAMD", "", "AuthenticAMD"):
        processor_of(maker)
        model = load(str(model_folder("llama")), cache=tmp_path)
        names.add(model.reader._circumstances([1, 2]))
    assert len(names) == 2


@pytest.mark.parametrize(("maker", "made"), [("AuthenticAMD", OneDnnLinear), ("", nn.Linear)])
def test_a_network_that_is_loaded_is_sped_up(model_folder, processor_of, maker, made):
    processor_of(maker)
    assert type(load_network(model_folder("llama"), "cpu", "float32").lm_head) is made


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_embedders_are_sped_up(tmp_path, processor_of, monkeypatch, family):
    """Ours, which calls :func:`linear`, and those of the library, through their layers."""
    from tiny_models import write_model

    from embedders import sentence_transformer as plain

    folder = str(write_model(tmp_path / family, family))
    built = [plain.build(plain.Config(model=folder, dtype="float32", device="cpu")) for _ in range(2)]
    processor_of("")
    wanted = built[0].embed_queries(["The tenant pays the rent."]).vectors
    processor_of("AuthenticAMD")
    called = []
    stock = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda *parts: called.append(len(parts)) or stock(*parts)
    )
    found = built[1].embed_queries(["The tenant pays the rent."]).vectors
    assert called
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), atol=1e-5, rtol=1e-5)
