"""Which stemmer a text is for: by its script, and for Latin letters by its function words.

A script that one language dominates decides by itself, word by word, so a Russian word in an English text
is stemmed as Russian. Latin text is told apart by its most frequent function words, each counting the less
the more languages have it (a word-list form of Cavnar and Trenkle 1994, "N-Gram-Based Text Categorization").
"""

from __future__ import annotations

from collections import defaultdict

import regex  # type: ignore[import-untyped]

SAMPLE_CHARS = 20_000
FALLBACK = "english"

_DOCUMENT_SHARE = 0.06  # of the words of a text in some language, at least so many are its function words
_ENOUGH_WORDS = 40  # a text of fewer is judged like a question
_QUESTION_LEAD = 0.7  # about one function word that only one language has

# The language whose stemmer takes a word in these letters unless the settings name another of the script.
SCRIPTS: dict[str, tuple[str, ...]] = {
    r"\p{Cyrillic}": ("russian", "serbian"),
    r"\p{Greek}": ("greek",),
    r"\p{Arabic}": ("arabic", "persian"),
    r"\p{Devanagari}": ("hindi", "nepali"),
    r"\p{Armenian}": ("armenian",),
    r"\p{Tamil}": ("tamil",),
    r"\p{Hebrew}": ("yiddish",),
}

_FUNCTION_WORDS = {
    "english": "the of and to in is was that for with as on by it from are were which what who how "
    "why when where does did has have had this not be an or at their its can many much",
    "german": "der die das und in den von zu mit ist des im dem nicht ein eine als auch es an "
    "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen "
    "so zum war haben nur oder aber vor zur bis mehr durch wer was welche welcher welches "
    "wann wo warum wurde wurden viele",
    "french": "le la les de des du et en un une est que qui dans pour pas sur au aux par plus ce "
    "avec son sa ses il elle ne se sont été était quel quelle quels quelles où quand "
    "comment combien pourquoi leur cette",
    "spanish": "el la los las de del y en un una que es por con para su sus se como más al lo fue "
    "qué quién cuál cuáles cuándo dónde cómo cuántos cuántas este esta entre era son no "
    "sobre según",
    "italian": "il lo la gli le di del della dei delle e in un una che è per con non si da al alla "
    "nel nella sono come più anche dal quale quali quando dove chi cosa perché quanti "
    "quante era questo ha",
    "portuguese": "o a os as de do da dos das e em um uma que é para com não por se no na nos nas ao à "
    "mais como foi qual quais quando onde quem são pelo pela seu sua quantos quantas",
    "dutch": "de het een van en in is dat op te zijn met voor niet aan er om ook als dan maar bij "
    "nog uit naar door werd wordt wat wie welke hoe waar wanneer waarom hoeveel deze dit "
    "heeft hun",
    "romanian": "și în de la cu pe din care este sunt un o a al ale lui mai nu că pentru prin fost au "
    "ce cine când unde cât câți câte cum dintre sau acest această le se",
    "turkish": "ve bir bu da de için ile olarak olan çok daha en gibi ne kadar hangi kim nasıl "
    "nerede zaman kaç olduğu değil sonra ise nedir neden tarafından oldu vardır göre",
    "swedish": "och i att det som en på är av för med till den har de inte om ett men var från vid "
    "kan vad vem vilken vilket när hur varför där många blev",
    "danish": "og i at det som en på er af for med til den har de ikke om et men var fra ved kan "
    "hvad hvem hvilken hvilket hvornår hvordan hvorfor hvor mange blev",
    "norwegian": "og i å det som en på er av for med til den har de ikke om et men var fra ved kan hva "
    "hvem hvilken hvilket når hvordan hvorfor hvor mange ble",
    "finnish": "ja on ei että se oli joka hän ovat mutta kuin myös tai sen ole mitä kuka miten missä "
    "milloin miksi mikä kuinka monta tämä olivat",
    "hungarian": "a az és hogy nem is egy ez volt meg mint csak ki mi hol mikor hogyan miért melyik "
    "hány vagy de ezt azt szerint között által",
    "polish": "i w na z do się nie to jest że o jak po od przez dla są był była które która który "
    "co kto gdzie kiedy dlaczego ile oraz za ich",
    "czech": "a v na se je že z do to s o jako za od pro by ale po jeho která které který co kdo "
    "kde kdy proč kolik byl byla jsou nebo",
    "vietnamese": "của và là có trong được cho một những các với không người đã này đến ai gì nào khi ở "
    "đâu bao nhiêu từ theo như về tại năm",
}

# Letters that in running text speak for a language about as much as a function word of its own.
_LETTERS = {
    "german": "ßäöü", "french": "çœèêùû", "spanish": "ñ¿¡", "portuguese": "ãõ", "romanian": "ăâîșțşţ",
    "turkish": "ğışİçöü", "polish": "łąęśźż", "czech": "řůěčž", "hungarian": "őű", "danish": "øæ",
    "norwegian": "ø", "swedish": "åäö", "finnish": "äö", "vietnamese": "đơưạảấầậắẹếềểệịọốồộớờợụủứừữựỹ",
}  # fmt: skip

_WORD = regex.compile(r"\p{Latin}+(?:['’]\p{Latin}+)?")


def _owners() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for signs in ({k: v.split() for k, v in _FUNCTION_WORDS.items()}, _LETTERS):
        for language, known in signs.items():
            for sign in known:
                if language not in found[sign]:
                    found[sign].append(language)
    return {word: tuple(languages) for word, languages in found.items()}


_OWNERS = _owners()
# Told apart so that they are not taken for others; there is nothing to stem.
UNSTEMMED = frozenset({"vietnamese"})


def latin_language(text: str) -> str | None:
    """The language of the Latin words of a text, or None if they do not tell. Only its beginning is read."""
    sample = text[:SAMPLE_CHARS]
    words = [word.casefold() for word in _WORD.findall(sample)]
    letters = [] if sample.isascii() else [c for c in sample if not c.isascii()]
    scores: dict[str, float] = defaultdict(float)
    for word in (*words, *letters):
        owners = _OWNERS.get(word, ())
        for language in owners:
            scores[language] += 1 / len(owners)
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    if not ranked:
        return None
    lead = ranked[0][1] - (ranked[1][1] if len(ranked) > 1 else 0.0)
    if len(words) >= _ENOUGH_WORDS:
        return ranked[0][0] if ranked[0][1] >= _DOCUMENT_SHARE * len(words) and lead > 0 else None
    return ranked[0][0] if lead >= _QUESTION_LEAD else None
