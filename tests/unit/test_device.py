"""Names of devices: those that cannot compute here are refused in one line."""

from __future__ import annotations

import pytest

from pipeline import device
from pipeline.errors import ConfigurationError, ModelMemoryError


def test_auto_is_a_device_that_is_there() -> None:
    assert device.found(device.found("auto")) in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:99", "hpu", ""])
def test_what_cannot_compute_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"The device '{name}' cannot be used: ") as told:
        device.check(name)
    assert "\n" not in told.value.message
    assert told.value.message.endswith(".") and not told.value.message.endswith("..")


@pytest.mark.parametrize("kind", ["OutOfMemoryError", "AcceleratorError"])
def test_a_device_whose_memory_is_full_is_told_from_one_that_is_not_there(monkeypatch, kind) -> None:
    import torch

    def full(*_, **__):
        raise getattr(torch, kind)("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'.")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(ModelMemoryError, match="The memory of the device 'cuda' is full") as told:
        device.found("cuda")
    assert "\n" not in told.value.message
    assert "cpu" not in told.value.remedy


def test_names_that_always_work_load_nothing() -> None:
    import subprocess
    import sys

    code = "import sys; from pipeline import device; device.check('auto'); device.check('cpu'); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], check=True, stdout=subprocess.PIPE
    )
    assert done.stdout.strip() == b"False"
