"""Messages to the token ids of a prompt, in the format the model was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pipeline.errors import InvalidRequestError, ModelError
from pipeline.seams import Message

ROLES = ("system", "user", "assistant")

_TURN_ENDS = {
    *("<|im_end|>", "<|endoftext|>"),  # ChatML: Qwen, SmolLM
    *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),  # Llama 3
    *("</s>", "<end_of_turn>", "<|end|>", "<|END_OF_TURN_TOKEN|>"),  # Mistral, Gemma, Phi, Command
}
"""Special tokens that end a turn in the chat formats in use; models name only some in their settings."""


class ChatFormat:
    """The chat template of one tokenizer.

    A model without a template gets a plain one: ``Role: content`` for each message, an empty line
    between, and ``Assistant:`` at the end. If a template refuses the system role, the system message
    goes in front of the first user message.

    Text that spells a special token (``<|im_end|>`` in a document) would be read as that token and
    could end the user's turn; a space after its first character keeps it text.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - a tokenizer of transformers
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            # Set here once: transformers would otherwise change them during a call, which other threads
            # see as "Already borrowed".
            backend.no_truncation()
            backend.no_padding()
        self._tokenizer = tokenizer
        self._specials = {
            str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        spelled = sorted((token for token in self._specials if len(token) > 1), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, spelled)) or r"(?!)")

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the whole prompt, up to where the model starts to answer.

        Raises InvalidRequestError for no messages, an unknown role, or an order the template refuses.
        """
        turns = self._turns(messages)
        if self._tokenizer.chat_template is None:
            return self._encode(_untemplated(turns), special=True)
        ids: list[int] = self._templated(turns, tokenize=True)
        return ids

    def render(self, messages: Sequence[Message]) -> tuple[str, bool]:
        """The whole prompt as text, and whether the tokenizer's own special tokens are added around it.

        Encoding the text so gives :meth:`prompt_ids`. Raises as that does.
        """
        turns = self._turns(messages)
        if self._tokenizer.chat_template is None:
            return _untemplated(turns), True
        return self._templated(turns, tokenize=False), False

    def encode_with_offsets(self, text: str, *, special: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a rendered prompt and the characters ``[start, end)`` of each, (0, 0) for tokens
        that were added. Raises ModelError for a tokenizer that cannot tell."""
        if not self._tokenizer.is_fast:
            raise ModelError(
                "The model's tokenizer does not say which characters a token spells.",
                remedy="The model folder needs tokenizer.json.",
            )
        encoded = self._tokenizer(
            text, add_special_tokens=special, return_offsets_mapping=True, verbose=False
        )
        return list(encoded["input_ids"]), [(start, end) for start, end in encoded["offset_mapping"]]

    def plain(self, text: str) -> str:
        """The text as it goes into a prompt: what spells a special token is broken up by a space."""
        return self._plain(text)

    def plain_offset(self, text: str, offset: int) -> int:
        """Where the character at ``offset`` of ``text`` stands in ``plain(text)``."""
        return offset + sum(match.start() < offset for match in self._spelled.finditer(text))

    def _turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        if not messages:
            raise InvalidRequestError("There is no message to answer.", remedy="Give at least one.")
        for message in messages:
            if message.role not in ROLES:
                raise InvalidRequestError(
                    f"A message has the role {message.role!r}.", remedy=f"Roles are: {', '.join(ROLES)}."
                )
        return [{"role": message.role, "content": self._plain(message.content)} for message in messages]

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text: no template, no special tokens."""
        return self._encode(self._plain(text), special=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens, exactly as the tokens spell it."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    @cached_property
    def vocabulary(self) -> Mapping[str, int]:
        """Every token and its id."""
        tokens: Mapping[str, int] = self._tokenizer.get_vocab()
        return tokens

    @property
    def identity(self) -> str:
        """Everything that decides which tokens a text becomes, as text."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return str(backend.to_str() if backend is not None else sorted(self._tokenizer.get_vocab().items()))

    def end_tokens(self, configured: Sequence[int]) -> frozenset[int]:
        """Ids that end an answer: the configured ones, the tokenizer's own and known ends of turns."""
        known = (index for token, index in self._specials.items() if token in _TURN_ENDS)
        own = self._tokenizer.eos_token_id
        return frozenset([*configured, *known, *([] if own is None else [own])])

    def _templated(self, turns: list[dict[str, str]], *, tokenize: bool) -> Any:  # noqa: ANN401 - ids or text
        from jinja2 import TemplateError

        try:
            return self._tokenizer.apply_chat_template(
                turns, tokenize=tokenize, add_generation_prompt=True, return_dict=False
            )
        except TemplateError as error:
            if turns[0]["role"] == "system" and len(turns) > 1 and turns[1]["role"] == "user":
                joined = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
                return self._templated([joined, *turns[2:]], tokenize=tokenize)
            raise InvalidRequestError(
                f"The model's chat template refuses these messages: {error}",
                remedy="Most templates want user and assistant in turn, the user first and last.",
            ) from error

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special, verbose=False)
        return ids

    def _plain(self, text: str) -> str:
        return self._spelled.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)


def _untemplated(turns: Sequence[dict[str, str]]) -> str:
    spoken = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns]
    return "\n\n".join([*spoken, "Assistant:"])


def load_format(path: Any) -> ChatFormat:  # noqa: ANN401 - str or Path
    """The chat format in a model folder. Raises ModelError if its tokenizer cannot be read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"The tokenizer in {path} cannot be loaded: {error}",
            remedy="The folder needs tokenizer.json, as AutoTokenizer.save_pretrained writes it.",
        ) from error
    return ChatFormat(tokenizer)
