"""Hard negatives: passages that BM25 ranks high and that are not answers."""

from collections.abc import Sequence

import bm25s
import numpy as np

from bge_rerank_integrations.evaluation.runs import K1, B
from training.records import Data, Passage
from training.texts import normalized

BM25_DEPTH = 60
KEPT = 48

# Ranks left out where the best BM25 hits are often answers too: near-identical pages (va-gov) and
# the same disease described on several sites (medquad).
SKIPPED_RANKS = {"va-gov": 10, "medquad": 12}


def mine(data: Data) -> dict[int, list[Passage]]:
    """Find negatives for every question that has a pool, hardest first.

    :returns: index of the question → at most `KEPT` passages.
    """
    answers: dict[str, set[str]] = {}
    for question in data.questions:
        known = answers.setdefault(normalized(question.query), set())
        known.update(normalized(passage.text) for passage in question.positives)
    mined: dict[int, list[Passage]] = {}
    for name, passages in data.pools.items():
        members = [i for i, question in enumerate(data.questions) if question.pool == name]
        if not members:
            continue
        texts = [normalized(passage.text) for passage in passages]
        words = [set(text.split()) for text in texts]
        by_group: dict[str, list[int]] = {}
        for position, passage in enumerate(passages):
            by_group.setdefault(passage.group, []).append(position)
        titled = [f"{passage.title} {passage.text}" for passage in passages]
        hits = _search(titled, [data.questions[i].query for i in members])
        for i, ranked in zip(members, hits, strict=True):
            question = data.questions[i]
            order = ranked[SKIPPED_RANKS.get(question.source, 0) :].tolist()
            if question.source == "medquad":
                # Other sections of the same document are the truly hard negatives there.
                order = [*by_group[question.positives[0].group], *order]
            known = answers[normalized(question.query)]
            positive_words = [set(normalized(p.text).split()) for p in question.positives]
            mined[i] = [
                passages[position]
                for position in dict.fromkeys(order)
                if texts[position] not in known
                and not any(_near_equal(words[position], other) for other in positive_words)
            ][:KEPT]
    return mined


def _search(texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Positions of the best texts, best first, `(queries, min(BM25_DEPTH, texts))` int32.

    Not by `BM25Index`, which drops stop words: matching the very words finds the more deceptive
    negatives.
    """
    corpus, wanted = (
        bm25s.tokenize(list(given), stopwords=[], show_progress=False) for given in (texts, queries)
    )
    index = bm25s.BM25(k1=K1, b=B)
    index.index(corpus, show_progress=False)
    found, _ = index.retrieve(wanted, k=min(BM25_DEPTH, len(texts)), show_progress=False)
    return np.asarray(found, dtype=np.int32)


def _near_equal(first: set[str], second: set[str]) -> bool:
    """Whether nearly all words of the shorter text are in the longer one."""
    return len(first & second) > 0.8 * max(1, min(len(first), len(second)))
