"""What a query and its documents may be, wherever the model runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from .errors import InputError

T = TypeVar("T")


def check_query(query: object) -> None:
    """Refuse a query that cannot be scored.

    :raises InputError: if it is not a string or not valid Unicode.
    """
    check_text(query, "query", None)


def check_documents(documents: Iterable[str]) -> list[str]:
    """Read documents once, and refuse those that cannot be scored.

    :param documents: any iterable, a generator too.
    :returns: the documents, in their order.
    :raises InputError: for one string, for what cannot be iterated, and for a document that is not
        a string or not valid Unicode; that one is named.
    """
    if isinstance(documents, str):
        raise InputError(
            f"documents must be a sequence of strings, got one string: {documents[:40]!r}"
        )
    if not isinstance(documents, Iterable):
        raise InputError(f"documents must be a sequence of strings, got {type(documents).__name__}")
    checked = list(documents)
    for index, document in enumerate(checked):
        check_text(document, f"document {index}", index)
    return checked


def check_items(given: Any, name: str, kind: type[T], hints: Mapping[type, str]) -> list[T]:
    """Read a framework's objects once, into a list of our own: the caller's may change meanwhile.

    :param given: any iterable, a generator or an array too; None is none.
    :param name: what to call them in the error, e.g. ``documents``.
    :param hints: what to do instead, for types that people hand over.
    :raises InputError: for anything that is not of ``kind``; it is named.
    """
    if given is None:
        return []
    if isinstance(given, (kind, str)) or not isinstance(given, Iterable):
        got = type(given).__name__ + (": put it into a list" if isinstance(given, kind) else "")
        raise InputError(f"{name} must be a list of {kind.__name__} objects, got one {got}")
    items = list(given)
    for index, item in enumerate(items):
        if not isinstance(item, kind):
            hint = next((hint for other, hint in hints.items() if isinstance(item, other)), "")
            raise InputError(
                f"{name} must be {kind.__name__} objects, item {index} is of type "
                f"{type(item).__name__}{hint}",
                index,
            )
    return items


def query_pairs(query: str, documents: Iterable[str]) -> list[tuple[str, str]]:
    """A query with each of its documents, all of them checked."""
    check_query(query)
    return [(query, document) for document in check_documents(documents)]


def check_pairs(pairs: Iterable[Sequence[str]], first_index: int = 0) -> list[tuple[str, str]]:
    """Read (query, document) pairs once, and refuse those that cannot be scored.

    :param first_index: the caller's index of the first pair.
    :raises InputError: naming the pair that is not two strings, or not valid Unicode.
    """
    checked: list[tuple[str, str]] = []
    for index, pair in enumerate(pairs, first_index):
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"pair {index} must be (query, document), got {pair!r:.80}", index)
        query, document = pair
        check_text(query, f"the query of pair {index}", index)
        check_text(document, f"the document of pair {index}", index)
        checked.append((query, document))
    return checked


def check_text(text: object, name: str, index: int | None) -> None:
    """Refuse a text that cannot be scored.

    :param name: what to call it in the error, e.g. ``document 3``.
    :param index: position in the caller's list; None means the query.
    :raises InputError: if it is not a string or not valid Unicode.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} must be a string, got {type(text).__name__}", index)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds a lone surrogate ({text[error.start]!r} at character {error.start}) "
            "and is not valid Unicode",
            index,
        ) from error
