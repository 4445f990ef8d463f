"""What a sentence commits itself to on its surface: names, negation, direction, the kind of answer.

With numbers (:mod:`pipeline.numerals`) these are what a paraphrase may not change. All word lists of the
answering stage are here. Code-like words are read in any script; names need a script with capitals;
negations are listed for a few languages, antonyms and kinds of answers for English. Where a language has
no rule, nothing is claimed, and grounding falls back on word coverage and embedding similarity.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.numerals import AMOUNT_WORDS, numbers


def _listed(text: str) -> list[str]:
    return text.split()


_WORD = re.compile(r"\b(?:[Nn]on|NON)[-‐‑][^\W\d_]+|[぀-ヿ㐀-鿿]|[^\W_]+(?:['’][^\W\d_]+)?")
# Words too common to say what a sentence is about, and the words questions are asked with.
STOP_WORDS = frozenset(
    _listed(
        "a an the and or of to in on at by for from with as is are was were be been being am it its this "
        "that these those he she they his her their them him we you i your our my me us do does did done "
        "doing have has had having who whom whose what when where which why how will would shall should can "
        "could may might must so than then there here if but into about also any each such own same too "
        "very all more most some other because while during out up not no nor s t "
        "become becomes became get gets got happen happens happened tell please many much"
    )
)

# Function words that come and go without changing what is said, and those that may only be left out. Any
# other ties the rest together (a duty, a tense, "or", "from", "when") and is as much a claim as a name is.
_PARTICLES = frozenset(_listed("a an the this that these those such it its they them their also s"))
_SPARE = _PARTICLES | frozenset(
    _listed(
        "who whom which all each every any both he him his she her i me my we us our you your own same very "
        "so then there here however therefore thus hence moreover furthermore additionally finally indeed"
    )
)
_TIES = STOP_WORDS - _SPARE
_SAME = {
    word: group.split()[0]
    for group in (
        "is are am", "was were", "has have", "do does", "must shall", "may can", "all each every",
        "he him his", "she her", "i me my", "we us our", "you your", "who whom",
    )
    for word in group.split()
}  # fmt: skip
_PREPOSITIONS = frozenset(
    _listed("in on at during after before since from to under by for with within upon until through")
)

NEGATIONS = frozenset(
    _listed(
        # English
        "not no never none neither nor nobody nothing nowhere without cannot cant dont doesnt didnt isnt "
        "wasnt arent werent wont wouldnt shouldnt couldnt unable fails fail failed lack lacks lacked lacking "
        "absence "
        # German, Dutch, French, Spanish, Italian, Portuguese, Russian, Turkish, Greek, Arabic, Hindi
        "nicht kein keine keinen keinem keiner keines nie niemals ohne weder niet geen nooit zonder "
        "ne pas jamais sans aucun aucune nunca jamás sin ningún ninguna ninguno tampoco non mai senza nessun "
        "nessuna nessuno não sem nenhum nenhuma не нет ни без никогда değil yok δεν μην لا لم لن ليس غير "
        "नहीं मत "
        # Chinese and Japanese, where a word is one character here
        "不 没 沒 無 无 未 非"
    )
)
_CONNECTIVES = frozenset(
    _listed(
        "however therefore thus hence moreover furthermore additionally overall finally according based yes "
        "although though since unless whether instead indeed specifically generally similarly consequently "
        "accordingly otherwise meanwhile often usually currently today later first another both many several "
        "few two three one passage answer question"
    )
)
_CONDITIONS = frozenset(
    _listed(
        "if unless except provided until subject only when whether according "
        "wenn falls sofern außer si sauf salvo se"
    )
)
_HEDGES = frozenset(
    _listed(
        "former formerly alleged allegedly proposed attempted deputy vice acting fake potential potentially "
        "possible possibly likely unlikely nearly almost about approximately reportedly supposedly hardly "
        "barely half least less more under over up partly so-called planned expected claimed unsuccessfully "
        "some most many few several more often usually sometimes generally mostly mainly rarely seldom"
    )
)
_PUNCTUATION = re.compile(r"[^\w\s'’-]|\n\s*\n")
_CLAUSE = re.compile(
    r"[,;:()\[\]–—]|\b(?:but|although|though|while|whereas|because|unless|except|if|which|who|and|or)\b",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(
    r"^(?:according to|based on) (?:the|this) (?:passages?|documents?|text)\b", re.IGNORECASE
)
_CONTRACTION = re.compile(r"n['’]t$")

_REFERRING = frozenset(
    _listed(
        "he she it they his her its their him them this these that those who which whom whose such i we my "
        "our "
        "er sie es ihr sein il elle ils elles son sa ses él ella su sus lui lei suo sua ele ela seu "
        "он она они его их"
    )
)

_OPPOSITES = (
    ("increas rais rise rose risen grow grew grown higher elev enhanc upregul",
     "decreas reduc lower fall fell fallen declin drop diminish downregul inhibit suppress impair attenu"),
    ("promot activ induc stimul enhanc facilit", "inhibit suppress block prevent impair repress attenu"),
    ("more greater larger most", "less fewer smaller least"),
    ("before earlier", "after later"),
    ("above over exceed", "below under"),
    ("allow permit entitl may", "prohibit forbid disallow"),
    ("includ", "exclud except"),
    ("accept approv agre", "reject refus declin den"),
    ("win won victori", "lose lost defeat"),
    ("shall must will requir oblig", "may can could might option"),
    ("all every each always", "some sometimes few most"),
    ("only sole solely exclus", "among partly"),
    ("always", "never"),
    ("first", "last"),
    ("highest", "lowest"),
    ("best", "worst"),
    ("early", "late"),
    ("posit", "negat"),
    ("improv better", "worsen wors deterior"),
    ("maximum", "minimum"),
    ("all every each", "none"),
    ("same", "differ"),
    ("support confirm", "oppos contradict refut"),
    ("gain", "loss"),
    ("open", "close"),
    ("start begin began begun", "end ended finish"),
    ("north northern", "south southern"),
    ("east eastern", "west western"),
    ("male men man", "female women woman"),
    ("high", "low"),
    ("true", "false"),
    ("buy bought acquir purchas", "sell sold"),
)  # fmt: skip
_OPPOSITE_SETS = tuple((frozenset(a.split()), frozenset(b.split())) for a, b in _OPPOSITES)

_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_AMOUNT = re.compile(rf"\d|\b(?:{'|'.join(sorted(AMOUNT_WORDS))})\b", re.IGNORECASE)
_TIME = re.compile(
    rf"\b(?:1\d|20)\d\d\b|\b{_MONTH}\b|\b\d{{1,2}}:\d\d\b|\b(?:yesterday|today|century|Monday|Tuesday"
    r"|Wednesday|Thursday|Friday|Saturday|Sunday|last (?:week|month|year|night))\b"
)
_CAUSE = re.compile(
    r"\b(?:because|due to|since|in order to|reasons?|therefore|so that|caused?|result(?:s|ed)?|thus)\b",
    re.IGNORECASE,
)


def _asks(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})", re.IGNORECASE)


# What is asked, and the pattern of what answers it; None stands for a name that the question lacks.
_ANSWER_TYPES: tuple[tuple[re.Pattern[str], re.Pattern[str] | None], ...] = (
    (_asks(r"when\b|(?:what|which) (?:year|date|day|month|time|century)\b|how long ago\b"), _TIME),
    (_asks(r"how (?:many|much|old|long|far|tall|high|often|big|large)\b"), _AMOUNT),
    (_asks(r"what (?:percent|number|age|amount|proportion|fraction|rate)"), _AMOUNT),
    (_asks(r"(?:what|which) (?:person|company|team|country|city|state|actor|singer|band)\b"), None),
    (_asks(r"who(?:se|m)?\b|where\b"), None),
    (_asks(r"why\b|what (?:caused|is the (?:reason|cause))"), _CAUSE),
)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a text commits itself to. ``names`` are casefolded; ``numbers`` are canonical."""

    numbers: frozenset[str]
    names: frozenset[str]
    negations: int

    def within(self, other: Claims) -> bool:
        """Whether nothing here goes beyond ``other``, negations included."""
        return (
            self.numbers <= other.numbers and self.names <= other.names and self.negations == other.negations
        )


def claims(text: str) -> Claims:
    """Numbers, names and the count of negations of a text of any length."""
    return Claims(
        frozenset(numbers(text)), frozenset(name.casefold() for name in names(text)), negations(words(text))
    )


def words(text: str) -> list[str]:
    """Casefolded words in order; every Han or kana character is a word."""
    found = written_words(text)
    return "\n".join(found).casefold().replace("’", "'").split("\n") if found else []


def written_words(text: str) -> list[str]:
    """Words as written, in order."""
    return _WORD.findall(text)


def without_lead_in(text: str) -> str:
    """The text without a beginning that only says where the rest is from ("According to the passage, ")."""
    return _LEAD_IN.sub("", text)


@dataclass(frozen=True, slots=True)
class PlacedWord:
    """A word as written, the number of its clause, and whether punctuation or nothing stands before it."""

    text: str
    clause: int
    opens: bool


def placed_words(text: str) -> list[PlacedWord]:
    """Words in order with their clauses; a conjunction belongs to the clause it begins."""
    cuts = [m.start() for m in _CLAUSE.finditer(text)]
    placed: list[PlacedWord] = []
    end = 0
    for m in _WORD.finditer(text):
        opens = not placed or bool(_PUNCTUATION.search(text, end, m.start()))
        placed.append(PlacedWord(m.group(), bisect_right(cuts, m.start()), opens))
        end = m.end()
    return placed


def is_conditional(casefolded: Iterable[str]) -> bool:
    """Whether one of the words makes what is said depend on something, or limits it."""
    return not _CONDITIONS.isdisjoint(casefolded)


def is_particle(casefolded: str) -> bool:
    """Whether the word may be put in or left out anywhere."""
    return casefolded in _PARTICLES


def is_spare(casefolded: str) -> bool:
    """Whether the word may be left out anywhere."""
    return casefolded in _SPARE


def is_tie(casefolded: str) -> bool:
    """Whether the word says how others hang together: a modal, tense, conjunction or preposition."""
    return casefolded in _TIES


def same(casefolded: str) -> str:
    """One word for all that say the same in another person or case: "is" for "are"."""
    return _SAME.get(casefolded, casefolded)


def is_preposition(casefolded: str) -> bool:
    """Whether the word may begin a phrase of place, time or circumstance."""
    return casefolded in _PREPOSITIONS


def is_hedged(casefolded: Iterable[str]) -> bool:
    """Whether one of the words takes back part of the word it stands with: "former", "almost"."""
    return not _HEDGES.isdisjoint(casefolded)


def clauses(sentence: str) -> list[str]:
    """A sentence cut at commas, brackets and conjunctions: about as far as a negation reaches."""
    return [clause for clause in _CLAUSE.split(sentence) if clause.strip()]


def is_common(word: str) -> bool:
    """Whether the word says nothing about what a sentence is about, or only joins it to another."""
    return word.casefold() in STOP_WORDS or word.casefold() in _CONNECTIVES


def names(text: str) -> list[str]:
    """Words that a capital or a digit inside marks as names, in order, sentence-initial ones included."""
    found = [re.sub(r"['’]s$", "", m.group()) for m in _WORD.finditer(text)]
    if text.isupper():  # a heading: here a capital means nothing
        found = [word for word in found if any(c.isdigit() for c in word)]
    return [word for word in found if len(word) > 1 and _is_name(word)]


def negations(casefolded: Iterable[str]) -> int:
    """How many of the words negate."""
    return sum(word in NEGATIONS or bool(_CONTRACTION.search(word)) for word in casefolded)


def opposed(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    """Whether one text says "more" where the other, lacking that, says "less" (stems or words)."""
    a, b = frozenset(ours), frozenset(theirs)
    return any(
        (_any_starts(a - b, left) and _any_starts(b - a, right))
        or (_any_starts(a - b, right) and _any_starts(b - a, left))
        for left, right in _OPPOSITE_SETS
    )


def refers_back(casefolded: Iterable[str]) -> bool:
    """Whether a pronoun or pointing word may stand for a name given earlier."""
    return not _REFERRING.isdisjoint(casefolded)


def _any_starts(words_: frozenset[str], stems: frozenset[str]) -> bool:
    # Short stems ("may", "den") must be whole words, or "Mayor" would permit and "dense" refuse.
    return any(w in stems or any(len(s) > 4 and w.startswith(s) for s in stems) for w in words_)


def answer_type_fit(question: str, sentence: str) -> float:
    """1 if the sentence holds the kind of thing asked for, 0 if not, 0.5 where no rule applies."""
    for asks, gives in _ANSWER_TYPES:
        if asks.search(question):
            if gives is not None:
                return float(bool(gives.search(sentence)))
            known = frozenset(words(question))
            return float(any(name.casefold() not in known for name in names(sentence)[1:]))
    return 0.5


def _is_name(word: str) -> bool:
    return any(c.isupper() for c in word) or (word[0].isalpha() and any(c.isdigit() for c in word))
