"""Sets made after public protocols, with known answers at known places. Same arguments, same set.

- Passkeys and needles by length: LongEmbed (Zhu et al. 2024, arXiv:2404.12096, section 3.1): which of 100
  candidates of one length holds somebody's passkey, or a fact. There the passkey's haystack is one repeated
  sentence and documents are ranked by one vector; here both stand in real text, and passages are ranked.
- Answers by position: Lost in the Middle (Liu et al. 2023, arXiv:2307.03172): one passage of several in a
  document answers, first, in the middle or last. Their distractors come from Contriever, ours are given.
- Key-value pairs (the same paper): a JSON object of random UUIDs; the question is a key.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.errors import InvalidRequestError
from pipeline.evaluation.dataset import EvaluationSet, Question, SetDocument
from pipeline.types import Encoding

_NAMES = [
    "Jennifer Moran",
    "Tobias Lindqvist",
    "Amara Okafor",
    "Hugh Pemberton",
    "Mei Tanaka",
    "Rosa Delgado",
    "Ivan Petrenko",
    "Fatima Haddad",
    "Oscar Whitfield",
    "Lena Vogel",
    "Samuel Osei",
    "Clara Beaumont",
    "Dmitri Volkov",
    "Nadia Rahman",
    "Peter Hallgren",
    "Yusuf Demir",
    "Grace Mbeki",
    "Arthur Quill",
    "Sofia Marino",
    "Bjorn Dahl",
]
_PLACES = [
    "Lisbon",
    "Reykjavik",
    "Valparaiso",
    "Kyoto",
    "Marrakesh",
    "Tallinn",
    "Dunedin",
    "Quito",
    "Bergen",
    "Tbilisi",
]
# The fact with what is asked of it; {p} is a place.
_FACTS = (
    (
        "The best thing to do in {p} is to eat a sandwich in the old park at noon.",
        "What is the best thing to do in {p}?",
    ),
    (
        "The municipal library of {p} lends out umbrellas on rainy Thursdays.",
        "What does the library of {p} lend out?",
    ),
    (
        "The oldest clock tower in {p} was repaired by a beekeeper in 1887.",
        "Who repaired the oldest clock tower in {p}?",
    ),
    (
        "The favourite soup of the mayor of {p} is made of chestnuts.",
        "What is the mayor of {p}'s favourite soup?",
    ),
    (
        "The night tram in {p} is painted violet so that owls avoid it.",
        "What colour is the night tram in {p}?",
    ),
    ("The chess club of {p} meets in a disused lighthouse.", "Where does the chess club of {p} meet?"),
    (
        "The secret ingredient of the famous cake of {p} is smoked salt.",
        "What is the secret ingredient of the cake of {p}?",
    ),
    (
        "The annual kite festival of {p} is opened by a retired submarine captain.",
        "Who opens the kite festival of {p}?",
    ),
    (
        "The botanical garden of {p} keeps a fern that is older than the cathedral.",
        "What does the botanical garden of {p} keep?",
    ),
    (
        "The orchestra of {p} tunes its violins to the sound of a ferry horn.",
        "To what does the orchestra of {p} tune its violins?",
    ),
)
_MOST_CANDIDATES = len(_PLACES) * len(_FACTS)


def needles(
    haystack: str, encode: Callable[[str], Encoding], tokens: int, *, candidates: int = 100, seed: int = 0
) -> EvaluationSet:
    """Documents of about ``tokens`` tokens out of the haystack, each with a passkey and a fact hidden in it.

    Questions are ``passkey-N`` and ``needle-N``. Raises InvalidRequestError for more candidates than there
    are facts (100), or a haystack without sentences.
    """
    if not 1 <= candidates <= _MOST_CANDIDATES or tokens < 64:
        raise InvalidRequestError(
            f"{candidates} candidates of {tokens} tokens cannot be made.",
            remedy=f"Ask for 1 to {_MOST_CANDIDATES} candidates of 64 tokens or more.",
        )
    if ". " not in haystack:
        raise InvalidRequestError("The haystack has no sentences.", remedy="Use a long running text.")
    offsets = encode(haystack).offsets
    rng = random.Random(seed + tokens)  # noqa: S311 - which sentences, no secret
    documents, questions = [], []
    for number in range(candidates):
        first = rng.randrange(max(1, len(offsets) - tokens))
        last = min(len(offsets), first + tokens - 48) - 1
        text = haystack[offsets[first, 0] : offsets[last, 1]]
        secrets = hidden(number, rng)
        for _, sentence, _, _ in secrets:
            text = _inserted(text, sentence, rng)
        name = f"candidate-{number}"
        documents.append(SetDocument(name, text))
        for task, sentence, asked, answer in secrets:
            start = text.index(sentence)
            questions.append(
                Question(
                    f"{task}-{number}",
                    asked,
                    answers=(answer,),
                    kind=task,
                    relevance={name: 1},
                    spans={name: ((start, start + len(sentence)),)},
                )
            )
    return EvaluationSet(f"needles-{tokens}", tuple(documents), tuple(questions))


def by_position(
    given: EvaluationSet,
    *,
    passages: int = 10,
    positions: Sequence[int] = (0, 4, 9),
    count: int = 100,
    seed: int = 0,
) -> list[EvaluationSet]:
    """One set a position: each document is ``passages`` documents of ``given`` in a row, the one that answers
    at that position (from 0), the others drawn at random. The same questions and distractors in each.

    Raises InvalidRequestError for a position out of range, or too few documents.
    """
    gold = {
        q.id: next(d for d, grade in q.relevance.items() if grade > 0) for q in given.questions if q.judged
    }
    if len(given.documents) < passages or not all(0 <= p < passages for p in positions) or not gold:
        raise InvalidRequestError(
            f"Positions {list(positions)} among {passages} of {len(given.documents)} documents do not exist.",
            remedy="Positions count from 0 and are below the number of passages.",
        )
    texts = {d.id: d.text for d in given.documents}
    asked = [q for q in given.questions if q.id in gold]
    asked = [asked[i * len(asked) // count] for i in range(min(count, len(asked)))]
    made = []
    for position in positions:
        rng = random.Random(seed)  # noqa: S311 - as above
        documents, questions = [], []
        for q in asked:
            others = rng.sample([d for d in texts if d not in q.relevance], passages - 1)
            order = [*others[:position], gold[q.id], *others[position:]]
            before = sum(len(texts[d]) + 2 for d in order[:position])
            name = f"context-{q.id}"
            documents.append(SetDocument(name, "\n\n".join(texts[d] for d in order)))
            span = (before, before + len(texts[gold[q.id]]))
            questions.append(replace(q, scope=name, relevance={name: 1}, spans={name: (span,)}))
        made.append(
            EvaluationSet(f"{given.name}-at-{position + 1}-of-{passages}", tuple(documents), tuple(questions))
        )
    return made


def key_value(*, keys: int = 75, count: int = 100, seed: int = 0) -> EvaluationSet:
    """Documents that are JSON objects of ``keys`` random UUIDs; the question is a key, the answer its value.

    The key asked for goes from the first to the last place over the documents.
    """
    if keys < 1 or count < 1:
        raise InvalidRequestError(f"{count} documents of {keys} keys.", remedy="Ask for 1 or more of each.")
    rng = random.Random(seed)  # noqa: S311 - as above
    documents, questions = [], []
    for number in range(count):
        pairs = [(_uuid(rng), _uuid(rng)) for _ in range(keys)]
        text = json.dumps(dict(pairs), indent=1)
        key, value = pairs[number * keys // count]
        name, at = f"pairs-{number}", text.index(f'"{key}"')
        end = text.index(f'"{value}"') + len(value) + 2
        documents.append(SetDocument(name, text))
        questions.append(
            Question(
                f"key-{number}",
                f'What is the value of the key "{key}"?',
                answers=(value,),
                scope=name,
                relevance={name: 1},
                spans={name: ((at, end),)},
            )
        )
    return EvaluationSet(f"key-value-{keys}", tuple(documents), tuple(questions))


def hidden(number: int, rng: random.Random) -> list[tuple[str, str, str, str]]:
    """Task, sentence, question and answer of a needle and a passkey; the first 100 numbers differ."""
    first = _NAMES[number % len(_NAMES)].split()[0]
    last = _NAMES[(number + 3 * (number // len(_NAMES))) % len(_NAMES)].split()[1]
    key = str(rng.randrange(10_000, 99_999))
    place = _PLACES[number % len(_PLACES)]
    fact, question = (part.format(p=place) for part in _FACTS[number // len(_PLACES) % len(_FACTS)])
    return [
        (
            "passkey",
            f"The passkey of {first} {last} is {key}.",
            f"What is the passkey of {first} {last}?",
            key,
        ),
        ("needle", fact, question, fact),
    ]


def _inserted(text: str, sentence: str, rng: random.Random) -> str:
    """The sentence at the beginning of a random sentence of the text."""
    stops = [at + 2 for at in range(len(text) - 1) if text[at : at + 2] == ". "]
    if not stops:
        return f"{text}. {sentence}"
    at = rng.choice(stops)
    return f"{text[:at]}{sentence} {text[at:]}"


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
