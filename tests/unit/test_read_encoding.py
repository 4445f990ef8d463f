"""Bytes to text. Sentences are from the Universal Declaration of Human Rights and public-domain books."""

from __future__ import annotations

import random

import pytest

from pipeline.errors import DamagedFileError, EmptyDocumentError
from pipeline.read.encoding import decode

RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему."
GERMAN = "Die schöne Frau hätte gern ein größeres Stück Käse und möchte ein Brötchen für dreißig Cent."
POLISH = "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni."
JAPANESE = "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。"
CHINESE = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"
TAIWANESE = "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神互相對待。"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα."
TURKISH = "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler."
HEBREW = "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון"
ENGLISH = "The company’s revenue rose 5 % — “a record year”, said the café owner. It costs 5 €."


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (RUSSIAN, "cp866"),
        (RUSSIAN, "iso8859_5"),
        (GERMAN, "cp1252"),
        (GERMAN, "cp850"),
        (GERMAN, "mac_roman"),
        (POLISH, "cp1250"),
        (POLISH, "iso8859_2"),
        (JAPANESE, "cp932"),
        (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"),
        (CHINESE, "gb18030"),
        (TAIWANESE, "big5"),
        (KOREAN, "cp949"),
        (GREEK, "cp1253"),
        (TURKISH, "cp1254"),
        (HEBREW, "cp1255"),
        (ENGLISH, "cp1252"),
        (ENGLISH, "utf-8"),
    ],
)
def test_unlabelled_text_is_read_in_its_encoding(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN, f"{JAPANESE}\n{JAPANESE}\n"])
def test_unicode_with_and_without_a_mark(text: str, encoding: str) -> None:
    decoded = decode(text.encode(encoding))
    assert decoded.text == text
    assert decoded.warnings == ()


def test_twenty_four_bytes_of_latin_1_are_right_and_said_to_be_a_guess() -> None:
    decoded = decode("## können\n\nkönnen\n\näöüß".encode("latin-1"))
    assert "können" in decoded.text
    assert "äöüß" in decoded.text
    assert "cp1252" in decoded.warnings[0]


def test_a_sure_guess_is_no_warning() -> None:
    assert decode((JAPANESE * 10).encode("cp932")).warnings == ()


def test_declared_encoding_is_believed_but_not_against_utf_8() -> None:
    assert decode("é".encode("cp1250"), declared="windows-1250").text == "é"
    assert decode("Größe".encode(), declared="iso-8859-1").text == "Größe"
    assert decode(b"price 5 \x80", declared="latin-1").text == "price 5 €"


@pytest.mark.parametrize("declared", ["nosuch", "rot13", "utf-8\x00", '"UTF-8"x: 8bit', ""])
def test_nonsense_declarations_are_ignored(declared: str) -> None:
    assert decode("Größe und Übermut".encode(), declared=declared).text == "Größe und Übermut"


def test_a_few_broken_bytes_do_not_make_it_another_encoding() -> None:
    data = (RUSSIAN * 5).encode() + b"\xff" + RUSSIAN.encode()
    decoded = decode(data)
    assert decoded.text.count("\ufffd") == 1
    assert decoded.text.startswith(RUSSIAN)
    assert "1 characters" in decoded.warnings[0]


@pytest.mark.parametrize("data", [b"", b" \r\n\t ", b"\xff\xfe", b"\xef\xbb\xbf\n", "\u3000".encode()])
def test_nothing_is_an_empty_document(data: bytes) -> None:
    with pytest.raises(EmptyDocumentError):
        decode(data)


def test_binary_rubbish_is_no_text() -> None:
    rng = random.Random(7)
    rubbish = [b"\x89PNG\r\n\x1a\n" + rng.randbytes(4000), rng.randbytes(100_000), b"\x00" * 64]
    rubbish.append(bytes.fromhex("d0cf11e0a1b11ae1") + b"\x00" * 500 + b"\xff" * 500)
    for data in rubbish:
        with pytest.raises(DamagedFileError, match="not text in any known encoding"):
            decode(data)
