"""Passkey and needle retrieval by length, after LongEmbed (Zhu et al. 2024, section 3.1).

Each of 100 candidate documents is real text of a given length with two sentences hidden in it at random
places: somebody's passkey, and a fact. All go into one collection; a question is answered right if the
first hit contains the sentence. Unlike LongEmbed, which ranks whole documents, a hit is a passage, and
the haystack is real text for both tasks.

    python -m benchmarks.needles --lengths 256 1024 4096 --haystack FILE_OR_FOLDER
"""

from __future__ import annotations

import argparse
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from api.build import open_longleaf
from api.settings import load_settings
from benchmarks.report import heading, shown
from pipeline.ingest import Source
from pipeline.read import read
from pipeline.types import Query

NAMES = (
    "Jennifer Moran,Tobias Lindqvist,Amara Okafor,Hugh Pemberton,Mei Tanaka,Rosa Delgado,Ivan Petrenko,"
    "Fatima Haddad,Oscar Whitfield,Lena Vogel,Samuel Osei,Clara Beaumont,Dmitri Volkov,Nadia Rahman,"
    "Peter Hallgren,Yusuf Demir,Grace Mbeki,Arthur Quill,Sofia Marino,Bjorn Dahl"
).split(",")
PLACES = "Lisbon,Reykjavik,Valparaiso,Kyoto,Marrakesh,Tallinn,Dunedin,Quito,Bergen,Tbilisi".split(",")
FACTS = [
    ("The best thing to do in {p} is to eat a sandwich in the old park at noon.", "What is the best thing to do in {p}?"),
    ("The municipal library of {p} lends out umbrellas on rainy Thursdays.", "What does the library of {p} lend out?"),
    ("The oldest clock tower in {p} was repaired by a beekeeper in 1887.", "Who repaired the oldest clock tower in {p}?"),
    ("The favourite soup of the mayor of {p} is made of chestnuts.", "What is the mayor of {p}'s favourite soup?"),
    ("The night tram in {p} is painted violet so that owls avoid it.", "What colour is the night tram in {p}?"),
    ("The chess club of {p} meets in a disused lighthouse.", "Where does the chess club of {p} meet?"),
    ("The secret ingredient of the famous cake of {p} is smoked salt.", "What is the secret ingredient of the cake of {p}?"),
    ("The annual kite festival of {p} is opened by a retired submarine captain.", "Who opens the kite festival of {p}?"),
    ("The botanical garden of {p} keeps a fern that is older than the cathedral.", "What does the botanical garden of {p} keep?"),
    ("The orchestra of {p} tunes its violins to the sound of a ferry horn.", "To what does the orchestra of {p} tune its violins?"),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One document with what is hidden in it: (task, sentence, question)."""

    text: str
    hidden: tuple[tuple[str, str, str], ...]


def cases(haystack: str, encode: object, tokens: int, count: int, seed: int) -> list[Case]:
    """``count`` documents of about ``tokens`` tokens, cut at blanks out of the haystack."""
    rng = random.Random(seed + tokens)
    offsets = encode(haystack).offsets  # type: ignore[operator]
    made = []
    for i in range(count):
        first = rng.randrange(0, max(1, len(offsets) - tokens))
        last = min(len(offsets), first + max(32, tokens - 48)) - 1
        text = haystack[offsets[first, 0] : offsets[last, 1]]
        first, last_name = NAMES[i % 20].split()[0], NAMES[(i + 3 * (i // 20)) % 20].split()[1]
        name = f"{first} {last_name}"
        key = rng.randrange(10_000, 99_999)
        fact, question = (part.format(p=PLACES[i % 10]) for part in FACTS[i // 10 % 10])
        hidden = (
            ("passkey", f"The passkey of {name} is {key}.", f"What is the passkey of {name}?"),
            ("needle", fact, question),
        )
        for _, sentence, _ in hidden:
            stops = [at + 2 for at in range(len(text) - 1) if text[at : at + 2] == ". "]
            at = rng.choice(stops or [len(text)])
            text = f"{text[:at]}{sentence} {text[at:]}" if stops else f"{text}. {sentence}"
        made.append(Case(text, hidden))
    return made


def main() -> None:
    """Print one line a length: accuracy at 1 for passkeys and needles, hybrid and dense only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--haystack", type=Path, default=Path("examples/winter_sports_in_switzerland.epub"))
    given = parser.parse_args()
    paths = [given.haystack] if given.haystack.is_file() else sorted(given.haystack.iterdir())
    haystack = " ".join(" ".join(read(path, name=path.name).text.split()) for path in paths)
    heading(f"{given.candidates} candidates a length, haystack {given.haystack.name}, seed {given.seed}")
    for tokens in given.lengths:
        with tempfile.TemporaryDirectory() as data, open_longleaf(load_settings({"data": data})) as longleaf:
            made = cases(haystack, longleaf.embedder.encode, tokens, given.candidates, given.seed)
            sources = [Source(name=f"candidate-{i}", text=case.text) for i, case in enumerate(made)]
            failed = [r for r in longleaf.ingestor.ingest(sources) if r.status == "failed"]
            if failed:
                raise SystemExit(f"{len(failed)} candidates failed, the first: {failed[0]}")
            right: dict[str, list[float]] = {"passkey": [], "needle": []}
            for case in made:
                for task, sentence, question in case.hidden:
                    top = longleaf.retriever.search(Query(question, top_k=1)).hits[0]
                    right[task].append(float(sentence in top.text))
            print(
                f"{tokens:>6} tokens  " + "  ".join(f"{t} {shown(v)}" for t, v in right.items()), flush=True
            )


if __name__ == "__main__":
    main()
