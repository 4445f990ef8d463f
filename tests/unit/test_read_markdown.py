"""Markdown and its front matter."""

from __future__ import annotations

import pytest

from pipeline.errors import EmptyDocumentError
from pipeline.read.builder import Hints
from pipeline.read.markdown import front_matter, read

SOURCE = """---
title: "My doc"
tags: [a, 'b c']
date: 2024-01-01
nested:
  - ignored
---
# Head *one*

Para with `code` and
soft break.  
Hard break.

- item 1
  - nested
- item 2

3. three
4. four

| a | b |
|---|---|
| 1 | 2 |

```python
def f():
    return 1

x = 2
```

> quote

<div>raw <b>html</b></div>
<script>alert(1)</script>

Setext
------
[link](http://example.org "t") and 2 < 3 & *a_b*
"""  # noqa: W291 - two spaces at a line's end are Markdown's line break


def test_everything_in_order() -> None:
    document = read(SOURCE.encode(), Hints("a.md"))
    assert [(b.kind, b.level, document.text[b.start : b.end]) for b in document.blocks] == [
        ("heading", 1, "Head one"),
        ("paragraph", 0, "Para with code and soft break.\nHard break."),
        ("list_item", 0, "item 1"),
        ("list_item", 0, "nested"),
        ("list_item", 0, "item 2"),
        ("list_item", 0, "3. three"),
        ("list_item", 0, "4. four"),
        ("table_row", 0, "a | b"),
        ("table_row", 0, "1 | 2"),
        ("code", 0, "def f():\n    return 1\n\nx = 2"),
        ("paragraph", 0, "quote"),
        ("paragraph", 0, "raw html"),
        ("heading", 2, "Setext"),
        ("paragraph", 0, "link and 2 < 3 & a_b"),
    ]
    assert document.title == "My doc"
    assert document.metadata == {"tags": ["a", "b c"], "date": "2024-01-01"}


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    assert front_matter("---\n\nText without an end.\n") == ({}, "---\n\nText without an end.\n")


def test_title_is_the_first_heading_and_nothing_is_empty() -> None:
    assert read("# Über uns\n\nText".encode("latin-1"), Hints()).title == "Über uns"
    with pytest.raises(EmptyDocumentError):
        read(b"---\ntitle: x\n---\n", Hints())
