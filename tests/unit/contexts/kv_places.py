"""Passages, origins and stores for the tests of cached contexts."""

from __future__ import annotations

from dataclasses import replace

import torch

from pipeline.lm.kv_format import KvStates
from pipeline.lm.kv_identity import Origin, PassageKey
from pipeline.lm.kv_store import KvStore, Shape
from pipeline.records import VersionKey

SHAPE = Shape(2, 2, 8, torch.float32, torch.device("cpu"))
ORIGIN = Origin("model-a", "tokenizer-a", "prefix-a", "rope from 5", "float32", "2x2x8", "native")


def owner(name: str = "lease", tenant: str = "acme", collection: str = "contracts", version: int = 1):
    return VersionKey(tenant, collection, name, version)


def passage(number: int, tokens: int = 10, of: VersionKey | None = None) -> PassageKey:
    return PassageKey.of(of or owner(), range(number, number + tokens))


def states(key: PassageKey, shape: Shape = SHAPE) -> KvStates:
    """What a model would compute: different for every passage, the same every time."""
    seed = torch.Generator().manual_seed(int(key.tokens_digest[:8], 16))
    size = (2, shape.layers, shape.heads, key.tokens, shape.width)
    keys, values = torch.randn(size, generator=seed).to(shape.dtype)
    return KvStates(keys, values)


def make_store(folder=None, kind="native", memory_passages=1000, disk_bytes=10**9, shape=SHAPE) -> KvStore:
    memory = memory_passages * shape.passage_bytes(10, kind)
    return KvStore(shape, memory_bytes=memory, kind=kind, folder=folder, disk_bytes=disk_bytes)


def origin(store: KvStore, **changes) -> Origin:
    return replace(ORIGIN, format=store.kind, **changes)


class Builder:
    """Counts what it builds, in order."""

    def __init__(self, passages, shape: Shape = SHAPE) -> None:
        self.passages, self.shape, self.built = list(passages), shape, []

    def __call__(self, number: int) -> KvStates:
        self.built.append(number)
        return states(self.passages[number], self.shape)


def ask(store: KvStore, passages, **changes) -> list[str]:
    """Hold passages once and check that they are the right ones; returns where each was found."""
    with store.hold(passages, origin(store, **changes), Builder(passages)) as held:
        for one in held:
            got, wanted = store.states(one), states(one.key)
            atol = {"native": 0, "float16": 2e-3, "bfloat16": 2e-2, "int8": 2e-2, "int4": 0.3}[store.kind]
            torch.testing.assert_close(got.keys, wanted.keys, atol=atol, rtol=0)
            torch.testing.assert_close(got.values, wanted.values, atol=atol, rtol=0)
        return [one.found for one in held]
