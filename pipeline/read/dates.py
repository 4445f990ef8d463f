"""When a file says that it was made: the one field ``created``, a date that filters can compare."""

from __future__ import annotations

import re

from pipeline.metadata import moment

_PDF = re.compile(
    r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(?:(\d\d)(\d\d)?(\d\d)?)?(?:(Z)(?:00'?00'?)?|([+-]\d\d)'?(?:(\d\d)'?)?)?",
    re.ASCII,
)


_YEAR_OR_MONTH = re.compile(r"\d{4}(-\d\d)?", re.ASCII)


def created(text: str) -> dict[str, str]:
    """The field, where the text is an ISO 8601 date; nothing where filters would see a mere word.

    A month or day that is not given is the first.
    """
    if _YEAR_OR_MONTH.fullmatch(text):
        text = f"{text}-01-01"[:10]
    return {"created": text} if moment(text) else {}


def iso_of_pdf(text: str) -> str:
    """A date of a PDF ("D:20190605131258-04'00'", ISO 32000-2, 7.9.4) in ISO 8601; other text as it is.

    A month or day that is not given is the first, as the standard has it; a date without a time stays one.
    """
    found = _PDF.fullmatch(text)
    if found is None:
        return text
    year, month, day, hour, minute, second, utc, ahead, ahead_minutes = found.groups()
    date = f"{year}-{month or '01'}-{day or '01'}"
    if hour is None:
        return date
    offset = utc or (f"{ahead}:{ahead_minutes or '00'}" if ahead else "")
    return f"{date}T{hour}:{minute or '00'}:{second or '00'}{offset}"
