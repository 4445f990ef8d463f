"""A model folder to a network on a device: where it runs, in which number format, how much it reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import device as devices
from pipeline.errors import ConfigurationError, ModelError, ModelMemoryError

if TYPE_CHECKING:
    import torch

    from pipeline.lm.chat import ChatFormat


def load_network(path: Path, device: str, dtype: str) -> Any:  # noqa: ANN401 - of transformers
    """The causal language model in a folder, in evaluation mode, on the device and in the dtype named
    (see :func:`placement`), its products computed by oneDNN where that pays
    (:mod:`pipeline.onednn`). Raises ModelError and ConfigurationError."""
    from transformers import AutoModelForCausalLM

    from pipeline.lm.attention import install
    from pipeline.lm.convert import quiet_transformers
    from pipeline.onednn import speed_up

    place, number_format = placement(device, dtype)
    try:
        with quiet_transformers(), memory_errors("loading the model"):
            network = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=number_format,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
            install(network)
            network = network.to(place).eval()
            speed_up(network)
            return network
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise _not_loaded(path, error) from error


def stretch(
    network: Any,  # noqa: ANN401 - of transformers
    positions: str,
    window_tokens: int | None,
    chat: ChatFormat,
) -> None:
    """Apply a spec of :mod:`pipeline.positions`. Raises ConfigurationError for one that does not fit the
    model, and ModelError for a family without support."""
    if positions == "native":
        return
    from pipeline.positions import MsPoe
    from pipeline.positions.network import extend_decoder

    choice = extend_decoder(network, positions, window_tokens)
    if isinstance(choice.method, MsPoe):
        from pipeline.lm import head_turns

        head_turns.apply(network, choice.method, head_turns.probe(chat))


def placement(device: str, dtype: str) -> tuple[str, torch.dtype]:
    """The device and dtype that ``auto`` stands for: CUDA if there is a device, else the CPU; float32 on a
    CPU, bfloat16 elsewhere. Raises ConfigurationError for unknown names."""
    import torch

    device = devices.found(device)
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in dtypes:
        raise ConfigurationError(
            f"dtype is {dtype!r}.", remedy=f"It must be auto or one of {', '.join(dtypes)}."
        )
    return device, dtypes[dtype]


def check(path: Path, name: str, positions: str, window_tokens: int | None) -> None:
    """Raise ConfigurationError for positions and a window with which loading the model in a folder would be
    refused, as far as that shows without its weights, and ModelError for a folder that cannot be read."""
    if positions == "native" and window_tokens is None:
        return
    from transformers import AutoConfig

    from pipeline.lm.convert import quiet_transformers
    from pipeline.positions.network import choose_for_decoder

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(path, error) from error
    if positions == "native":
        window(config, window_tokens, name)
    else:
        choose_for_decoder(config, positions, window_tokens)


def _not_loaded(path: Path, error: Exception) -> ModelError:
    return ModelError(
        f"The model in {path} cannot be loaded: {error}",
        remedy="It must be a causal language model that transformers knows without running its own code.",
    )


def window(config: Any, wanted: int | None, name: str) -> int:  # noqa: ANN401 - a transformers config
    """Most tokens of prompt and answer: the model's own number, or a smaller one that is wanted."""
    native: int | None = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    tokens = wanted if wanted is not None else native
    if tokens is None:
        raise ConfigurationError(
            f"{name} does not say how many tokens it reads.", remedy="Set window_tokens."
        )
    if not 1 <= tokens <= (native or tokens):
        raise ConfigurationError(
            f"window_tokens is {tokens:,}; {name} reads {native:,}.", remedy="Set it to at most that."
        )
    return tokens


@contextlib.contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Say what failed when memory ran out; other errors of torch pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise ModelMemoryError(
            f"Memory ran out while {doing}: {error}",
            remedy="Use a smaller model, window_tokens or dtype, or fewer requests at a time.",
        ) from error
