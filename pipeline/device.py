"""Where torch computes: a name in the settings to a device that is there."""

from __future__ import annotations

from pipeline.errors import ConfigurationError, ModelMemoryError


def found(name: str) -> str:
    """The device that a name stands for; ``auto`` is CUDA if there is a device, else the processor.

    Raises ConfigurationError for one that does not exist or cannot compute here, ModelMemoryError for one
    whose memory is full.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()  # fetched, because the device 'meta' makes tensors without numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).strip().partition("\n")[0].rstrip(".")
        if "out of memory" in why:
            raise ModelMemoryError(
                f"The memory of the device {name!r} is full: {why}.",
                remedy="Free some of it, or use another device.",
            ) from error
        raise ConfigurationError(
            f"The device {name!r} cannot be used: {why}.",
            remedy="Use cpu, or auto, which takes a GPU if there is one.",
        ) from error
    return name


def check(name: str) -> None:
    """As :func:`found`, without importing torch for names that always work."""
    if name != "auto":
        found(name)
