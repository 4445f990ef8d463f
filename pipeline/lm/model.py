"""One language model in this process: load, prefill, step, stream.

The decoding loop is Longleaf's own, because ``generate`` of transformers can neither be cancelled
between chunks of a prompt nor interleaved with another caller. Importing this module is cheap; torch and
transformers are imported when a model is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import models
from pipeline.errors import ConfigurationError, InvalidRequestError, ModelError, PromptTooLongError
from pipeline.lm.text_stream import Detokenizer, StopStrings
from pipeline.lm.turns import Turns
from pipeline.seams import Message, Sampling, TextDelta

if TYPE_CHECKING:
    import torch
    from transformers import Cache

    from pipeline.lm.attention import Plan
    from pipeline.lm.chat import ChatFormat

PREFILL_TOKENS = 256
"""Prompt tokens of one step: cancellation is noticed, and another caller's turn comes, this often."""


def load(
    spec: str,
    *,
    cache: Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    window_tokens: int | None = None,
    positions: str = "native",
    allow_download: bool = False,
    progress: Callable[[str], None] | None = None,
) -> LocalModel:
    """Load the model a spec names (see :mod:`pipeline.models`), converting a GGUF file first if need be.

    ``auto`` means CUDA if there is a device, else the CPU; float32 on a CPU, bfloat16 on a GPU.
    ``threads`` is for the whole process. ``window_tokens`` may only shorten the model's own window, or
    what ``positions``, a spec of :mod:`pipeline.positions` such as ``yarn:4``, makes of it.
    Raises ModelNotFoundError, ModelError and ConfigurationError.
    """
    located = models.prepare(spec, cache, allow_download=allow_download, progress=progress)
    import torch

    from pipeline.lm.chat import load_format

    if threads is not None:
        torch.set_num_threads(threads)
    chat = load_format(located.path)
    network = _load_network(located.path, *_placement(device, dtype))
    if positions != "native":
        from pipeline.positions.network import extend_decoder

        extend_decoder(network, positions, window_tokens)
    return LocalModel(located, network, chat, _window(network.config, window_tokens, located.name))


class LocalModel:
    """A chat model in this process. Safe for several threads: they take turns, step by step."""

    def __init__(
        self,
        located: models.LocatedModel,
        network: Any,  # noqa: ANN401 - a causal language model of transformers
        chat: ChatFormat,
        window_tokens: int,
    ) -> None:
        """``network`` is a causal language model of transformers in evaluation mode."""
        self._located = located
        self._network = network
        self._chat = chat
        self._window_tokens = window_tokens
        self._turns = Turns()
        configured = getattr(network.generation_config, "eos_token_id", None) or ()
        self._ends = chat.end_tokens([configured] if isinstance(configured, int) else configured)

    @property
    def name(self) -> str:
        """The model's name without its place."""
        return self._located.name

    @property
    def window_tokens(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._window_tokens

    def describe(self) -> Mapping[str, str | int]:
        """What is running, for ``doctor`` and for stored results."""
        import torch

        return {
            "name": self.name,
            "revision": self._located.revision,
            "device": str(self._network.device),
            "dtype": str(self._network.dtype).removeprefix("torch."),
            "attention": str(self._network.config._attn_implementation),
            "parameters": self._network.num_parameters(),
            "window_tokens": self._window_tokens,
            "threads": torch.get_num_threads(),
        }

    def count_tokens(self, text: str) -> int:
        """Tokens of a plain text, no template."""
        return len(self._chat.encode(text))

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the whole prompt, chat template included."""
        return len(self._chat.prompt_ids(messages))

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[TextDelta]:
        """Generate an answer, token by token; ``TextDelta.tokens`` counts those since the last delta.

        ``finish`` is ``stop`` at an end token or stop string, ``length`` when ``max_tokens`` or the
        window is used up, ``cancelled`` within one step of ``cancelled()`` being true (a token, or
        ``PREFILL_TOKENS`` of the prompt). Raises, before any work and at the call itself,
        PromptTooLongError and InvalidRequestError; ModelError while running.
        """
        from pipeline.lm.sampling import check

        check(sampling)
        prompt = self._chat.prompt_ids(messages)
        self._check_fits(len(prompt) + 1)
        return self._generate(prompt, sampling, cancelled)

    def logprob(self, messages: Sequence[Message], continuation: str) -> list[float]:
        """Natural logarithm of each token's probability, were ``continuation`` the answer.

        Raises InvalidRequestError for an empty continuation and PromptTooLongError.
        """
        import torch

        prompt, answer = self._chat.prompt_ids(messages), self._chat.encode(continuation)
        if not answer:
            raise InvalidRequestError("The continuation is empty.", remedy="Give the text to be scored.")
        self._check_fits(len(prompt) + len(answer))
        ids = [*prompt, *answer[:-1]]  # the last one is predicted, not read
        cache, logprobs = self._new_cache(len(ids)), []
        for start in range(0, len(ids), PREFILL_TOKENS):
            chunk = ids[start : start + PREFILL_TOKENS]
            first = max(start, len(prompt) - 1)  # the position that predicts the answer's first token
            wanted = start + len(chunk) - first
            logits = self._step(chunk, cache, keep=max(wanted, 1))
            if wanted > 0:
                targets = torch.tensor(answer[first - len(prompt) + 1 :][:wanted], device=logits.device)
                scores = logits.float().log_softmax(-1).gather(-1, targets[:, None])
                logprobs += scores[:, 0].tolist()
        return logprobs

    def _generate(
        self, prompt: list[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[TextDelta]:
        from pipeline.lm.sampling import Chooser

        most_tokens = min(sampling.max_tokens, self._window_tokens - len(prompt))
        cache = self._new_cache(len(prompt) + most_tokens)
        for start in range(0, len(prompt), PREFILL_TOKENS):
            if cancelled():
                yield TextDelta("", 0, "cancelled")
                return
            logits = self._step(prompt[start : start + PREFILL_TOKENS], cache)
        chooser, words, stops = Chooser(sampling), Detokenizer(self._chat.decode), StopStrings(sampling.stop)
        finish, unreported = "length", 0
        for left in range(most_tokens, 0, -1):
            token = chooser.choose(logits[-1])
            if token in self._ends:
                finish = "stop"
                break
            unreported += 1
            text, stopped = stops.push(words.push(token))
            if stopped:
                yield TextDelta(text, unreported, "stop")
                return
            if text:
                yield TextDelta(text, unreported)
                unreported = 0
            if left > 1:
                if cancelled():
                    finish = "cancelled"
                    break
                logits = self._step([token], cache)
        yield TextDelta(stops.flush(), unreported, finish)

    def _step(
        self, ids: Sequence[int], cache: Cache, keep: int = 1, plan: Plan | None = None
    ) -> torch.Tensor:
        """Read ids after those in the cache. Logits (``keep``, V) at the last positions."""
        import torch

        from pipeline.lm.attention import following

        start = cache.get_seq_length()
        with self._turns.turn(), torch.inference_mode(), _memory_errors(len(ids)), following(plan, start):
            batch = torch.tensor([ids], device=self._network.device)
            placed = {}
            if plan is not None and plan.positions is not None:
                at = torch.arange(start, start + len(ids), device=self._network.device)
                placed = {"position_ids": plan.positions(at)[None]}
            result = self._network(
                input_ids=batch, past_key_values=cache, use_cache=True, logits_to_keep=keep, **placed
            )
        logits: torch.Tensor = result.logits[0]
        return logits

    def _new_cache(self, capacity_tokens: int) -> Cache:
        from pipeline.lm.kv_cache import new_cache

        return new_cache(self._network.config, capacity_tokens)

    def _check_fits(self, tokens: int) -> None:
        if tokens > self._window_tokens:
            raise PromptTooLongError(
                f"Prompt and answer need {tokens:,} tokens; {self.name} reads {self._window_tokens:,}.",
                remedy="Shorten the question, lower the context budget, or use a model with a longer window.",
            )


def _load_network(path: Path, device: str, dtype: torch.dtype) -> Any:  # noqa: ANN401 - of transformers
    from transformers import AutoModelForCausalLM

    from pipeline.lm.attention import install
    from pipeline.lm.convert import quiet_transformers

    try:
        with quiet_transformers(), _memory_errors(0):
            network = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
            install(network)
            return network.to(device).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(
            f"The model in {path} cannot be loaded: {error}",
            remedy="It must be a causal language model that transformers knows without running its own code.",
        ) from error


def _placement(device: str, dtype: str) -> tuple[str, torch.dtype]:
    """The device and dtype that ``auto`` stands for. Raises ConfigurationError for unknown names."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in dtypes:
        raise ConfigurationError(
            f"dtype is {dtype!r}.", remedy=f"It must be auto or one of {', '.join(dtypes)}."
        )
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(
            f"The device {device!r} cannot be used: {error}", remedy="Use auto, cpu, cuda or mps."
        ) from error
    return device, dtypes[dtype]


def _window(config: Any, wanted: int | None, name: str) -> int:  # noqa: ANN401 - a transformers config
    native: int | None = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    window = wanted if wanted is not None else native
    if window is None:
        raise ConfigurationError(
            f"{name} does not say how many tokens it reads.", remedy="Set window_tokens."
        )
    if not 1 <= window <= (native or window):
        raise ConfigurationError(
            f"window_tokens is {window:,}; {name} reads {native:,}.", remedy="Set it to at most that."
        )
    return window


@contextlib.contextmanager
def _memory_errors(tokens: int) -> Iterator[None]:
    """Say what failed when memory ran out; other errors of torch pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        doing = f"reading {tokens} more tokens" if tokens else "loading the model"
        raise ModelError(
            f"Memory ran out while {doing}: {error}",
            remedy="Use a smaller model, window_tokens or dtype, or fewer requests at a time.",
        ) from error
