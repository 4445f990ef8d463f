"""Streaming text: pieces add up to the whole, and stop strings are never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.lm.text_stream import Detokenizer, StopStrings


@pytest.fixture(scope="module")
def decode(tokenizer):
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.fixture(scope="module")
def word_start_tokenizer():
    """The scheme of Llama 2 and Mistral: a sign before each word, bytes for unknown characters, and a
    decoder that drops the space before the first word."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    signs = [f"<0x{byte:02X}>" for byte in range(256)] + list("▁abcdefghijklmnopqrstuvwxyz,.")
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "a")]
    vocab = {sign: n for n, sign in enumerate(["<unk>", *signs, *("".join(merge) for merge in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def stream(decode, ids):
    detokenizer = Detokenizer(decode)
    return [detokenizer.push(token) for token in ids]


@given(text=st.text(alphabet=st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])))
def test_any_text_comes_back_whole(tokenizer, decode, text):
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    pieces = stream(decode, ids)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@given(ids=st.lists(st.integers(0, 399), max_size=60))
def test_any_tokens_give_what_decoding_them_together_gives(decode, ids):
    streamed, whole = "".join(stream(decode, ids)), decode(ids)
    assert whole.startswith(streamed)
    assert set(whole[len(streamed) :]) <= {"\ufffd"}


def test_an_emoji_comes_in_one_piece_and_an_unfinished_one_not_at_all(tokenizer, decode):
    ids = tokenizer.encode("a 🦜", add_special_tokens=False)
    assert len(ids) > 3
    pieces = stream(decode, ids)
    assert pieces[-1] == "🦜"
    assert "".join(stream(decode, ids[:-1])) == "a "


@given(text=st.text(alphabet="theab ,.é契🌲", max_size=40))
def test_word_start_tokenizers_lose_no_space(word_start_tokenizer, text):
    ids = word_start_tokenizer.encode(text, add_special_tokens=False).ids
    assert "".join(stream(word_start_tokenizer.decode, ids)) == word_start_tokenizer.decode(ids)
    assert "".join(stream(word_start_tokenizer.decode, ids)).strip() == text.strip()


def test_decoding_stays_cheap_however_long_the_text():
    longest = 0

    def decode(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return "".join(chr(token) for token in ids)

    assert "".join(stream(decode, [97] * 500)) == "a" * 500
    assert longest <= 2


def cut_one_character_at_a_time(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The definition: the text ends as soon as a stop string is complete; the longest one is removed."""
    for end in range(1, len(text) + 1):
        complete = [s for s in stop if text[:end].endswith(s)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(
    pieces=st.lists(st.text(alphabet="ab\n", max_size=5), max_size=12),
    stop=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_stop_strings_do_not_depend_on_how_the_text_is_cut_into_pieces(pieces, stop):
    stops, shown = StopStrings(stop), ""
    stopped = False
    for piece in pieces:
        part, stopped = stops.push(piece)
        shown += part
        if stopped:
            break
    if not stopped:
        shown += stops.flush()
    assert (shown, stopped) == cut_one_character_at_a_time("".join(pieces), stop)


@given(pieces=st.lists(st.text(alphabet="ab\n", max_size=5), max_size=12))
def test_nothing_is_held_back_longer_than_needed(pieces):
    stops, shown, text = StopStrings(("\n\n",)), "", ""
    for piece in pieces:
        part, stopped = stops.push(piece)
        if stopped:
            break
        shown, text = shown + part, text + piece
        assert shown == (text[:-1] if text.endswith("\n") else text)
