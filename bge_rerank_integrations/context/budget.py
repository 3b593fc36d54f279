"""The best documents that fit a budget of tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

from ..checks import is_int
from ..errors import ConfigurationError
from ..highlighting import sentences

CountTokens = Callable[[str], int]


def fit_budget(
    texts: Iterable[tuple[str, str]], max_tokens: int, count: CountTokens, *, cut: bool = False
) -> list[tuple[int, str]]:
    """Take texts in their order as long as their tokens fit together.

    A text that does not fit is left out, and shorter ones behind it may still fit.

    :param texts: best first, each with what stands before it, such as its metadata.
    :param max_tokens: of all texts that are taken, at most, with what stands before them.
    :param count: tokens of a text.
    :param cut: take the first sentences of a text that does not fit, as many as do.
    :returns: index and text of those that are taken, in order.
    :raises ConfigurationError: if ``count`` raises, or returns no int of at least 0.
    """
    taken = []
    left = max_tokens
    for index, (before, text) in enumerate(texts):
        tokens = counted(count, before + text)
        if tokens > left and cut:
            text = first_sentences(before, text, left, count)
            if not text:
                continue
            tokens = counted(count, before + text)
        if tokens <= left:
            taken.append((index, text))
            left -= tokens
    return taken


def first_sentences(before: str, text: str, max_tokens: int, count: CountTokens) -> str:
    """The longest head of whole sentences that fits, empty where the first one is too long."""
    ends = [end for _, end in sentences(text)]
    # a longer head has more tokens; the caller counts again, as a counter may think otherwise
    fitting = bisect_right(
        ends, max_tokens, key=lambda end: counted(count, before + text[:end].rstrip())
    )
    return text[: ends[fitting - 1]].rstrip() if fitting else ""


def counted(count: CountTokens, text: str) -> int:
    """The tokens of a text, by a counter that may be the user's.

    :raises ConfigurationError: if it raises, or returns no int of at least 0.
    """
    try:
        tokens = count(text)
    except Exception as error:
        raise ConfigurationError(
            f"count_tokens must return the tokens of a text, it raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if not is_int(tokens, 0):
        raise ConfigurationError(f"count_tokens must return an int of at least 0, got {tokens!r}")
    return tokens
