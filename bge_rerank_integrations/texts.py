"""What every reranker asks of a text, wherever its model runs."""

from __future__ import annotations

from bge_rerank_integrations.errors import InputError


def check_text(text: object, name: str, index: int | None) -> None:
    """Refuse what is no text.

    :param name: what to call it in the error, e.g. ``document 3``.
    :param index: position in the caller's list; None means the query.
    :raises InputError: if it is not a string, or holds a lone surrogate.
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
