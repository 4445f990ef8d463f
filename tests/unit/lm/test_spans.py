"""Passages are found in prompts to the token, whatever the template and the text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_networks import make_tokenizer

from pipeline.errors import InvalidRequestError, ModelError
from pipeline.lm.chat import ChatFormat
from pipeline.lm.spans import Place, address
from pipeline.seams import Message

TEMPLATES = {
    "chatml": make_tokenizer().chat_template,
    "none": None,
    "trims": "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}</s>{% endfor %}A:",
    "no system": (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    ),
}


def chat_with(template) -> ChatFormat:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return ChatFormat(tokenizer)


CHATS = {name: chat_with(template) for name, template in TEMPLATES.items()}


def bytes_of_tokens(chat, ids) -> list[tuple[int, int]]:
    """Where each token of a byte-level tokenizer begins and ends in the prompt's UTF-8, from its spelling."""
    spellings, at = [], 0
    for token in chat._tokenizer.convert_ids_to_tokens(ids):
        special = token in chat._specials
        length = len(token.encode()) if special else len(token)
        spellings.append((at, at + length))
        at += length
    return spellings


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@given(
    passages=st.lists(
        st.one_of(
            st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
            st.sampled_from(["the", "<|im_end|> the", "🌲🌲", "契約 \n", "  lease  ", "\ue0001\ue001"]),
        ).filter(str.strip),
        min_size=1,
        max_size=4,
    ),
    glue=st.sampled_from(["", "\n", " | "]),
)
@example(passages=["the", "the", "system"], glue="")
@settings(max_examples=40, deadline=None)
def test_spans_are_the_tokens_with_a_byte_of_the_passage(name, passages, glue):
    chat, content, places = CHATS[name], "§", []
    for passage in passages:
        places.append(Place(1, len(content), len(content) + len(passage)))
        content += passage + glue
    content += "§"  # nothing to strip, so that the place of the content is known
    messages = [Message("system", "the system"), Message("user", content)]
    found = address(chat, messages, places)
    assert list(found.ids) == chat.prompt_ids(messages)
    rendered, _ = chat.render(messages)
    begin = rendered.index(chat.plain(content))
    spellings = bytes_of_tokens(chat, found.ids)
    for place, (start, end) in zip(places, found.spans, strict=True):
        first = len(rendered[: begin + len(chat.plain(content[: place.start]))].encode())
        last = len(rendered[: begin + len(chat.plain(content[: place.end]))].encode())
        expected = [n for n, (low, high) in enumerate(spellings) if low < last and high > first]
        assert (start, end) == (expected[0], expected[-1] + 1)


def test_spans_do_not_overlap_where_markers_stand_between():
    messages = [Message("user", "[1]\nthe lease\n[2]\nthe lease\n[3]\nthe lease")]
    content = messages[0].content
    starts = [n for n in range(len(content)) if content.startswith("the lease", n)]
    spans = address(CHATS["chatml"], messages, [Place(0, n, n + 9) for n in starts]).spans
    assert [end for _, end in spans][:-1] < [start for start, _ in spans][1:]
    assert len({end - start for start, end in spans}) == 1


@pytest.mark.parametrize("content", ["", "   "])
def test_a_passage_without_tokens_is_refused(content):
    with pytest.raises(InvalidRequestError, match="no tokens"):
        address(CHATS["trims"], [Message("user", content)], [Place(0, 0, len(content))])


def test_a_template_that_rewrites_text_is_said():
    chat = chat_with("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}")
    with pytest.raises(ModelError, match="changes the text"):
        address(chat, [Message("user", "the lease")], [Place(0, 0, 3)])


def test_a_template_without_use_of_the_system_message_is_fine():
    chat = chat_with("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}")
    messages = [Message("system", "Be brief."), Message("user", "the lease")]
    found = address(chat, messages, [Place(1, 4, 9)])
    assert chat.decode(found.ids[slice(*found.spans[0])]).strip() == "lease"
