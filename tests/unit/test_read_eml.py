"""Mail: headers, the body that is shown, and what is attached."""

from __future__ import annotations

import pytest
from small_files import MAIL

from pipeline.errors import DamagedFileError, UnsupportedFormatError
from pipeline.read.builder import Hints
from pipeline.read.eml import read


def test_plain_part_headers_and_attachment() -> None:
    document = read(MAIL, Hints("a.eml"))
    assert document.text == (
        "Größe of it\n\nFrom: Ann <a@example.org>\nTo: Bob <b@example.org>\n"
        "Date: Mon, 1 Jan 2024 10:00:00 +0100\n\nThe plain café text."
    )
    assert document.title == "Größe of it"
    assert document.metadata == {
        "from": "Ann <a@example.org>",
        "to": "Bob <b@example.org>",
        "date": "2024-01-01T10:00:00+01:00",
        "created": "2024-01-01T10:00:00+01:00",
    }
    assert document.warnings == ("Attachments were not read: a.pdf. Add them as files of their own.",)


def mail(content_type: str, body: bytes, more: str = "") -> bytes:
    return f"Subject: S\r\nFrom: a@example.org\r\nContent-Type: {content_type}\r\n{more}\r\n".encode() + body


def test_html_is_read_where_there_is_no_plain_text() -> None:
    empty = (
        b"--b\r\nContent-Type: text/plain\r\n\r\n \r\n"
        b"--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n"
        b"<h1>Hi</h1><ul><li>caf\xe9</ul>\r\n--b--\r\n"
    )
    document = read(mail("multipart/alternative; boundary=b", empty), Hints())
    assert document.text.endswith("Hi\n\ncafé")


@pytest.mark.parametrize("charset", ["nosuch-8", '"UTF-8"Content-Transfer-Encoding: 8bit', "", "utf-8*x"])
def test_a_charset_that_does_not_exist_costs_nothing(charset: str) -> None:
    data = mail(f"text/plain; charset={charset}", "Die Größe der Straße überrascht.\r\n".encode())
    assert "Die Größe der Straße überrascht." in read(data, Hints()).text


def test_encoded_words_in_unknown_charsets() -> None:
    data = b"Subject: =?nosuch?Q?caf=E9?= =?utf-8?b?w6k=?= =?utf-8?b?broken\r\nFrom: x\r\n\r\nBody.\r\n"
    assert read(data, Hints()).title.startswith("café")


def test_flowed_and_wrapped_lines_are_joined_quotes_kept() -> None:
    body = b"The first half of a sentence \r\nand its other half.\r\n\r\n> quoted one\r\n> quoted two\r\n"
    document = read(mail("text/plain; format=flowed", body), Hints())
    assert "first half of a sentence and its other half." in document.text
    assert "> quoted one\n> quoted two" in document.text


def test_mail_without_text_and_no_mail() -> None:
    with pytest.raises(UnsupportedFormatError, match="application/pdf"):
        read(mail("application/pdf", b"JVBERi0=\r\n", "Content-Transfer-Encoding: base64\r\n"), Hints())
    with pytest.raises(DamagedFileError):
        read(b"\r\nno headers at all", Hints())


def test_endless_nesting_is_damage() -> None:
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(3000)
    )
    with pytest.raises(DamagedFileError):
        read(b"Subject: x\r\n" + deep + b"\r\nhi", Hints())
