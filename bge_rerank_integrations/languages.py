"""Texts in a language that a model does not read, told by their letters and commonest words.

Such texts get no low scores: for an English question, a model that reads English alone gives German
passages on its topic scores like those of answers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from .catalog import languages_of

# names of letters, as Unicode begins them; of models for other languages nothing is known
_LETTERS = {"English": ("LATIN",), "Chinese, English": ("LATIN", "CJK")}
#: without words that are English too, such as "die" and "was"; the server's page has the same
COMMON_WORDS = {
    "English": "the of and to is that it for with this are you can how what does not which when",
    "German": "der das und ist nicht ein eine zu mit den von für auf wird werden sich auch wie",
    "French": "le la les des et est une dans que qui pas sur avec vous pour comment du au ce",
    "Spanish": "el los las una por para como del más se es y que está cómo qué un lo su",
    "Portuguese": "os um uma não com da em mais como é dos ao na pelo são você que o e",
    "Italian": "il che di una è sono della gli nel alla come più dei delle un si lo e",
    "Dutch": "het een en van niet met zijn voor dat ik je wordt hoe ook deze naar maar de",
}
# what is looked at: enough to tell, and little beside the scoring
_DOCUMENTS, _CHARACTERS = 5, 400


def unread_language(model: str, query: str, documents: Sequence[str]) -> str | None:
    """Say that the query or the first documents are in a language that the model does not read.

    :returns: a sentence; None if nothing looks so, or nothing is known of the model's languages.
    """
    languages = languages_of(model)
    if languages not in _LETTERS:
        return None
    first = " ".join(document[:_CHARACTERS] for document in documents[:_DOCUMENTS])
    for what, text in (("query is", query[:_CHARACTERS]), ("documents are", first)):
        if looks := next(_foreign(text, _LETTERS[languages]), None):
            read = languages.replace(", ", " and ")
            return f"the {what} {looks}, and {model} reads {read}: the scores may mean little"
    return None


def _foreign(text: str, letters: tuple[str, ...]) -> Iterator[str]:
    names = [unicodedata.name(letter, "") for letter in text if letter.isalpha()]
    if sum(not name.startswith(letters) for name in names) > len(names) / 2:
        yield "in another script"
    words = re.findall(r"\w+", text.lower())
    counts = {
        language: sum(w in common.split() for w in words)
        for language, common in COMMON_WORDS.items()
    }
    english = counts.pop("English")
    language = max(counts, key=counts.__getitem__)
    if counts[language] >= 2 and counts[language] > 2 * english:
        yield f"in {language}, it seems"
