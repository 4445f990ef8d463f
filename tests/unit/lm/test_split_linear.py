"""Linear layers whose few-row products are cut into parts."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

from pipeline import machine
from pipeline.lm import split_linear
from pipeline.lm.loading import load_network
from pipeline.lm.model import load
from pipeline.lm.split_linear import MOST_ROWS, PARTS, SplitLinear, share_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def on_amd(monkeypatch):
    monkeypatch.setattr(machine, "processor_maker", lambda: "AuthenticAMD")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 48), (1, 1, 48), (2, 7, 48), (1, MOST_ROWS, 48), (1, MOST_ROWS + 1, 48), (1, 0, 48)]
)
def test_a_split_layer_equals_the_stock_one(two_threads, on_amd, shape, bias):
    torch.manual_seed(0)
    stock = nn.Linear(48, 20, bias=bias)
    wanted = stock(states := torch.randn(shape))
    network = nn.Sequential(stock)
    share_threads(network)
    assert type(network[0]) is SplitLinear
    torch.testing.assert_close(network(states), wanted, atol=1e-6, rtol=1e-5)


def test_a_weight_with_other_strides_gives_the_same(two_threads, on_amd):
    stock = nn.Linear(48, 20)
    stock.weight = nn.Parameter(torch.randn(48, 20).T)
    wanted = stock(states := torch.randn(3, 48))
    network = nn.Sequential(stock)
    share_threads(network)
    assert type(network[0]) is SplitLinear
    torch.testing.assert_close(network(states), wanted, atol=1e-5, rtol=1e-5)


def test_only_few_rows_on_a_few_threads_are_split(two_threads, on_amd, monkeypatch):
    network = nn.Sequential(nn.Linear(8, 8))
    share_threads(network)
    products = []
    stock = torch.matmul
    monkeypatch.setattr(split_linear.torch, "matmul", lambda a, b: products.append(a.shape) or stock(a, b))
    network(torch.ones(MOST_ROWS, 8))
    network(torch.ones(MOST_ROWS + 1, 8))
    for threads in (1, PARTS + 1):
        torch.set_num_threads(threads)
        network(torch.ones(1, 8))
    torch.set_num_threads(PARTS)
    network(torch.ones(1, 8))
    assert products == [(MOST_ROWS, 8), (1, 8)]


def test_weights_stay_where_they_are(on_amd):
    network = nn.Sequential(nn.Linear(8, 8), nn.Embedding(8, 8))
    network[0].weight = network[1].weight  # tied, as those of many language models
    share_threads(network)
    assert type(network[0]) is SplitLinear
    assert network[0].weight is network[1].weight
    assert set(network.state_dict()) == {"0.weight", "0.bias", "1.weight"}


class Doubled(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, input):
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(8, 6), nn.Linear(8, 8, dtype=torch.bfloat16), nn.Linear(8, 8, device="meta"), Doubled(8, 8)],
    ids=["no whole parts", "bfloat16", "another device", "another forward"],
)
def test_what_cannot_be_split_is_left_alone(on_amd, layer):
    before = type(layer)
    share_threads(nn.Sequential(layer))
    assert type(layer) is before


@pytest.mark.parametrize("maker", ["GenuineIntel", ""])
def test_on_other_processors_nothing_is_split(monkeypatch, maker):
    monkeypatch.setattr(machine, "processor_maker", lambda: maker)
    network = nn.Sequential(nn.Linear(8, 8))
    share_threads(network)
    assert type(network[0]) is nn.Linear


def test_costs_of_passes_are_measured_anew_where_threads_share_them(model_folder, monkeypatch, tmp_path):
    names = set()
    for maker in ("AuthenticAMD", "", "AuthenticAMD"):
        monkeypatch.setattr(machine, "processor_maker", lambda maker=maker: maker)
        model = load(str(model_folder("llama")), cache=tmp_path)
        names.add(model.reader._circumstances([1, 2]))
    assert len(names) == 2


@pytest.mark.parametrize(("maker", "made"), [("AuthenticAMD", SplitLinear), ("", nn.Linear)])
def test_a_network_that_is_loaded_shares_threads(model_folder, monkeypatch, maker, made):
    monkeypatch.setattr(machine, "processor_maker", lambda: maker)
    assert type(load_network(model_folder("llama"), "cpu", "float32").lm_head) is made
