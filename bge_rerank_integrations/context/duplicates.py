"""Documents that say again what a better one has said: copied pages, overlapping windows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from .options import DEFAULT_DUPLICATE_SHARE

# words in a shingle, as in the deduplication of corpora (Lee et al., arXiv 2107.06499, appendix A)
_SHINGLE_WORDS = 5
# scripts without spaces between words: each character counts as a word
# (Thai to Lao, Myanmar, Khmer, kana to Han, Han's compatibility forms and extensions)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def without_duplicates(
    texts: Iterable[str], share: float = DEFAULT_DUPLICATE_SHARE
) -> Iterator[int]:
    """Indices of the texts that no better one contains, in order; read as far as asked for.

    A text is contained in another by the share of its shingles (runs of five words) that the other
    has too: Broder, On the resemblance and containment of documents, 1997. So a part of a better
    text goes, and a text that has a better one as its part stays. Time is linear in the length of
    the texts, as long as the kept ones have little in common.

    :param texts: best first.
    :param share: from which share on a text is a duplicate, above 0 and up to 1.
    """
    holders: dict[int, list[int]] = {}
    for index, text in enumerate(texts):
        own = _shingles(text)
        shared = Counter(holder for shingle in own for holder in holders.get(shingle, ()))
        if max(shared.values(), default=0) < share * len(own):
            for shingle in own:
                holders.setdefault(shingle, []).append(index)
            yield index


def _shingles(text: str) -> set[int]:
    """Hashes of the text's shingles, at least one; case, spaces and punctuation do not count."""
    # what has no words, such as a row of dashes, is a word of its own
    words = _WORD.findall(text.casefold()) or [text.strip()]
    starts = range(max(len(words) - _SHINGLE_WORDS, 0) + 1)
    return {hash(tuple(words[start : start + _SHINGLE_WORDS])) for start in starts}
