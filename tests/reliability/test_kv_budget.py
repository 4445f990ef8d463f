"""Memory of cached contexts: 50 questions over 1,000 passages that exceed the budget by far."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "lm"))

PASSAGES, QUESTIONS, CANDIDATES, ATTENDED, TOKENS = 1_000, 50, 100, 20, 64
BUDGET_BYTES = 2**30  # the default
DISK_BYTES = 3200 * 2**20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most memory that this process had resident while the block lasted, and at its beginning."""

    def __enter__(self) -> Peak:
        self._over = threading.Event()
        self.before = self.most = resident_bytes()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, resident_bytes())


@pytest.fixture
def kv_folder(tmp_path):
    """Where states are kept: gigabytes, which pytest would leave there."""
    yield tmp_path / "kv"
    shutil.rmtree(tmp_path / "kv", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_fifty_questions_over_a_thousand_passages_stay_within_the_budgets(tmp_path, kv_folder):
    """Both tiers to the byte at every look, and the process with all that passes of a tiny network need for a
    moment within 5 % of the default budget."""
    from tiny_networks import make_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    from pipeline.lm.context_options import ContextCalibration, ContextOptions, ContextsConfig
    from pipeline.lm.context_request import Asked
    from pipeline.lm.contexts import Contexts
    from pipeline.lm.model import load
    from pipeline.records import VersionKey

    shape = LlamaConfig(
        vocab_size=400,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=32,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(shape).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    model = load(str(tmp_path / "model"), cache=tmp_path / "cache")
    calibration = ContextCalibration(
        model.name, str(model.describe()["revision"]), heads=((6, 1), (7, 0)), weight=0.5
    )
    config = ContextsConfig(memory_bytes=BUDGET_BYTES, disk_bytes=DISK_BYTES)
    contexts = Contexts(model, config, kv_folder, calibration)
    rng = random.Random(0)
    made = []
    for n in range(PASSAGES):
        text = " ".join(str(rng.randrange(10**6)) for _ in range(TOKENS // 4))
        made.append(contexts.passage(VersionKey("t", "c", f"d{n % 40}", 1), "", text, rng.random()))
    whole = sum(contexts.store.passage_bytes(passage.key.tokens) for passage in made)
    assert whole > 2 * BUDGET_BYTES
    list(contexts.warm(made[:20]))  # what the model itself takes for reading is there before
    contexts.store.memory.clear()

    def within() -> None:
        memory, disk = contexts.store.stats()["memory"], contexts.store.stats()["disk"]
        assert memory["bytes"] <= memory["peak_bytes"] <= memory["budget_bytes"] <= BUDGET_BYTES
        assert disk["bytes"] <= DISK_BYTES

    with Peak() as peak:
        for question in range(QUESTIONS):
            some = rng.sample(made, CANDIDATES)
            asked = Asked(f"What of {question}?", some, ContextOptions(attended=ATTENDED))
            with contexts.reading(asked, room_tokens=4) as reading:
                assert len(reading.attended) == ATTENDED
            within()
    contexts.store.flush()
    within()
    on_disk = sum(path.stat().st_size for path in kv_folder.rglob("*.safetensors"))
    assert on_disk <= DISK_BYTES
    assert contexts.store.memory.evicted > 0
    grown = peak.most - peak.before
    print(
        f"\n{whole / 2**20:.0f} MiB of states, budget {BUDGET_BYTES / 2**20:.0f} MiB: tier at most "
        f"{contexts.store.memory.peak_bytes / 2**20:.1f}, process grew by {grown / 2**20:.1f} MiB "
        f"({grown / BUDGET_BYTES:.3f} of it); disk {on_disk / 2**20:.0f} of {DISK_BYTES / 2**20:.0f} MiB"
    )
    contexts.close()
    assert grown <= 1.05 * BUDGET_BYTES
