"""A caller's texts, checked and without repetitions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bge_rerank_integrations.engine.scheduling.jobs import TextPair
from bge_rerank_integrations.errors import InputError
from bge_rerank_integrations.inputs import check_documents, check_query, check_text


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be scored for one call.

    Equal pairs are scored once, so that they get equal scores.

    :param pairs: the different pairs.
    :param slots: for each pair of the caller, its place in ``pairs``.
    :param indices: for each of ``pairs``, the caller's index of its first occurrence.
    """

    pairs: Sequence[TextPair]
    slots: Sequence[int]
    indices: Sequence[int]


def request_for_documents(query: str, documents: Iterable[str]) -> Request:
    """One query against several documents.

    :raises InputError: naming the document that is not a string or holds a lone surrogate.
    """
    check_query(query)
    pairs = [(query, document) for document in check_documents(documents)]
    return _without_repetitions(pairs, 0)


def request_for_pairs(pairs: Iterable[Sequence[str]], first_index: int) -> Request:
    """Pairs of (query, document).

    :param first_index: the caller's index of the first pair.
    :raises InputError: naming the pair that is not two strings or holds a lone surrogate.
    """
    checked: list[TextPair] = []
    for index, pair in enumerate(pairs, first_index):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"pair {index} must be (query, document), got {pair!r:.80}", index)
        query, document = pair
        check_text(query, f"the query of pair {index}", index)
        check_text(document, f"the document of pair {index}", index)
        checked.append((query, document))
    return _without_repetitions(checked, first_index)


def _without_repetitions(pairs: Sequence[TextPair], first_index: int) -> Request:
    slot_of: dict[TextPair, int] = {}
    indices: list[int] = []
    for index, pair in enumerate(pairs, first_index):
        if pair not in slot_of:
            slot_of[pair] = len(slot_of)
            indices.append(index)
    return Request(list(slot_of), [slot_of[pair] for pair in pairs], indices)
