"""One language model in this process: load, prefill, step, stream.

The decoding loop is Longleaf's own, because ``generate`` of transformers can neither be cancelled
between chunks of a prompt nor share a forward pass with another caller. Importing this module is cheap;
torch and transformers are imported when a model is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import models
from pipeline.errors import InvalidRequestError, PromptTooLongError
from pipeline.lm import loading, reading
from pipeline.lm.drafting import Drafting
from pipeline.lm.engine import Engine
from pipeline.lm.reading import PromptReader
from pipeline.lm.request import MOST_DRAFT_TOKENS, PLAIN, Generation, Moved, Speculation
from pipeline.lm.writing import Writer
from pipeline.seams import Capabilities, Message, Sampling, TextDelta

if TYPE_CHECKING:
    import torch
    from transformers import Cache

    from pipeline.lm.attention import Plan
    from pipeline.lm.chat import ChatFormat
    from pipeline.lm.sequence import Sequence as Read

PREFIX_BYTES = 512 * 2**20
"""States of earlier prompts that are kept unless the settings say otherwise."""


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
    prefix_bytes: int = PREFIX_BYTES,
    speculation: Speculation = PLAIN,
    drafter: LocalModel | None = None,
) -> LocalModel:
    """Load the model a spec names (see :mod:`pipeline.models`), converting a GGUF file first if need be.

    ``auto`` means CUDA if there is a device, else the CPU; float32 on a CPU, bfloat16 on a GPU.
    ``threads`` is for the whole process. ``window_tokens`` may only shorten the model's own window, or
    what ``positions``, a spec of :mod:`pipeline.positions` such as ``yarn:4``, makes of it. The rest is for
    :class:`LocalModel`. Raises ModelNotFoundError, ModelError and ConfigurationError.
    """
    located = models.prepare(spec, cache, allow_download=allow_download, progress=progress)
    import torch

    from pipeline.lm.chat import load_format

    if threads is not None:
        torch.set_num_threads(threads)
    chat = load_format(located.path)
    network = loading.load_network(located.path, device, dtype)
    loading.stretch(network, positions, window_tokens, chat)
    return LocalModel(
        located,
        network,
        chat,
        loading.window(network.config, window_tokens, located.name),
        prefix_bytes=prefix_bytes,
        speculation=speculation,
        drafter=drafter,
        costs=(cache or models.default_cache()) / "costs",
    )


class LocalModel:
    """A chat model in this process. Safe for several threads: their steps share forward passes."""

    def __init__(
        self,
        located: models.LocatedModel,
        network: Any,  # noqa: ANN401 - a causal language model of transformers
        chat: ChatFormat,
        window_tokens: int,
        *,
        prefix_bytes: int = PREFIX_BYTES,
        speculation: Speculation = PLAIN,
        drafter: LocalModel | None = None,
        costs: Path | None = None,
    ) -> None:
        """``network`` is a causal language model of transformers in evaluation mode. ``drafter`` writes
        drafts where they are asked for, else this model itself does. ``speculation`` is how :meth:`stream`
        decodes. ``costs`` is a folder for how long passes take here; without one each process measures.
        Raises ConfigurationError for a drafter whose tokens are not this model's."""
        from pipeline.lm import attention

        self._located = located
        self._network = network
        self._chat = chat
        self._window_tokens = window_tokens
        self._speculation = speculation
        packs = network.config._attn_implementation == attention.NAME
        self.engine = Engine(network, packs=packs)
        self.reader = PromptReader(self.engine, prefix_bytes, window_tokens, located.revision, costs)
        self._drafting = Drafting(self, drafter or self)
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

    @property
    def network(self) -> Any:  # noqa: ANN401 - of transformers
        """The network itself, in evaluation mode."""
        return self._network

    @property
    def chat(self) -> ChatFormat:
        """How messages become tokens."""
        return self._chat

    @property
    def capabilities(self) -> Capabilities:
        """All that a model in this process can do; attention only of families that are known."""
        from pipeline.lm import attention

        watched = self._network.config._attn_implementation == attention.NAME
        return Capabilities(attention=watched, kv_cache=True, logprobs=True, speculation=True)

    @property
    def revision(self) -> str:
        """SHA-256 of the weights, as published."""
        return self._located.revision

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
        window is used up, ``cancelled`` within one step of ``cancelled()`` being true (a token, a round of
        speculation's draft or check, or ``PREFILL_TOKENS`` of the prompt). Raises, before any work and at
        the call itself, PromptTooLongError and InvalidRequestError; ModelError while running.
        """
        return self.generate(Generation(messages, sampling, self._speculation, cancelled=cancelled))

    def generate(self, request: Generation) -> Iterator[TextDelta]:
        """As :meth:`stream`, for a whole request: how to draft, and for which tenant.

        The last delta's ``usage`` says how the answer was decoded and what drafting brought. Raises also
        PromptTooLongError for a drafter that cannot read its prompt where speculation is demanded.
        """
        from pipeline.lm.sampling import check

        check(request.sampling)
        request.speculation.check()
        prompt = self._chat.prompt_ids(request.messages)
        self._check_fits(len(prompt) + 1)
        if request.context_strength:
            from pipeline.lm import contrast

            contrast.check(request)
            bare = self._chat.prompt_ids(request.bare_messages)
            return contrast.contrasted(self, request, prompt, bare, self._ends)
        plan = self._plan(request.messages, request.moved)
        return self._generate(request, prompt, self._drafting.prompt(request), plan)

    def logprob(
        self, messages: Sequence[Message], continuation: str, moved: Moved | None = None
    ) -> list[float]:
        """Natural logarithm of each token's probability, were ``continuation`` the answer, with attention
        moved as an answer's would be.

        Raises InvalidRequestError for an empty continuation and PromptTooLongError.
        """
        import torch

        logits, answer = self.continuation_logits(messages, continuation, moved)
        targets = torch.tensor(answer, device=logits.device)
        scores = logits.float().log_softmax(-1).gather(-1, targets[:, None])
        logprobs: list[float] = scores[:, 0].tolist()
        return logprobs

    def continuation_logits(
        self, messages: Sequence[Message], continuation: str, moved: Moved | None = None
    ) -> tuple[torch.Tensor, list[int]]:
        """Logits (n, V) that predict each token of ``continuation``, were it the answer, and its n tokens.

        Raises as :meth:`logprob`.
        """
        import torch

        prompt, answer = self._chat.prompt_ids(messages), self._chat.encode(continuation)
        if not answer:
            raise InvalidRequestError("The continuation is empty.", remedy="Give the text to be scored.")
        self._check_fits(len(prompt) + len(answer))
        sequence = self.reader.begin("", prompt, len(answer))
        sequence.plan = self._plan(messages, moved)
        first = self.reader.read(sequence, prompt[len(sequence.ids) :], lambda: False)
        assert first is not None
        rows = [first]
        for start in range(0, len(answer) - 1, reading.PREFILL_TOKENS):  # the last one predicts nothing
            part = answer[start : min(start + reading.PREFILL_TOKENS, len(answer) - 1)]
            rows.append(sequence.read(part, len(part)))
        return torch.cat(rows), answer

    def _plan(self, messages: Sequence[Message], moved: Moved | None) -> Plan | None:
        """What an answer to these messages does to attention."""
        if moved is None:
            return None
        from pipeline.lm.moved_attention import moving

        return moving(self, messages, moved)

    def _generate(
        self, request: Generation, prompt: list[int], draft_prompt: list[int], plan: Plan | None
    ) -> Iterator[TextDelta]:
        most_tokens = min(request.sampling.max_tokens, self._window_tokens - len(prompt))
        tenant = request.tenant if request.reuse else None
        sequence = self.reader.begin(tenant, prompt, most_tokens + MOST_DRAFT_TOKENS)
        known, sequence.plan = len(sequence.ids), plan
        try:
            logits = self.reader.read(sequence, prompt[known:], request.cancelled)
            if logits is None:
                yield TextDelta("", 0, "cancelled")
                return
            usage = {"cached_prompt_tokens": known}
            yield from self.write(request, sequence, logits, most_tokens, draft_prompt, usage=usage)
        finally:
            self.reader.keep(tenant, sequence)

    def write(
        self,
        request: Generation,
        sequence: Read,
        logits: torch.Tensor,
        most_tokens: int,
        draft_prompt: Sequence[int] = (),
        *,
        usage: Mapping[str, int | float | str],
    ) -> Iterator[TextDelta]:
        """Write the answer to what ``sequence`` has read, however it came to be: ``logits`` (1, V) are of its
        first token. ``usage`` is told with the last delta."""
        from pipeline.lm.sampling import Chooser
        from pipeline.lm.target import Target

        writer = Writer(self._chat.decode, self._ends, request.sampling.stop, most_tokens)
        rounds = self._drafting.rounds(
            request, Target(sequence, logits), Chooser(request.sampling), list(draft_prompt), most_tokens
        )
        began = time.perf_counter()
        with self.engine.writer():
            while writer.finish is None and not request.cancelled():
                yield from writer.write(rounds.next(writer.left_tokens, request.cancelled))
        rounds.close()
        seconds = round(time.perf_counter() - began, 4)
        told = {**usage, "decode_seconds": seconds, **rounds.usage()}
        yield replace(writer.end("cancelled"), usage=told, degraded=rounds.degraded)

    def _step(
        self, ids: Sequence[int], cache: Cache, keep: int = 1, plan: Plan | None = None
    ) -> torch.Tensor:
        """Read ids after those in the cache. Logits (``keep``, V) at the last positions."""
        from pipeline.lm.sequence import Sequence as Read

        read = Read(self.engine, cache, before=cache.get_seq_length(), plan=plan)
        return read.read(list(ids), keep)

    def _new_cache(self, capacity_tokens: int) -> Cache:
        return self.reader.new_cache(capacity_tokens)

    def _check_fits(self, tokens: int) -> None:
        if tokens > self._window_tokens:
            raise PromptTooLongError(
                f"Prompt and answer need {tokens:,} tokens; {self.name} reads {self._window_tokens:,}.",
                remedy="Shorten the question, lower the context budget, or use a model with a longer window.",
            )
