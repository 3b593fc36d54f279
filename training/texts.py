"""How alike two texts are."""

import re
from collections import Counter
from collections.abc import Iterable


def normalized(text: str) -> str:
    """Words of a text, lower-cased: equal for texts that differ in case and punctuation only."""
    return " ".join(re.findall(r"\w+", text.lower()))


class Twins:
    """Finds how similar the most similar of many questions is."""

    def __init__(self, queries: Iterable[str]) -> None:
        self._sets = [set(normalized(query).split()) for query in queries]
        self._holders: dict[str, list[int]] = {}
        for index, words in enumerate(self._sets):
            for word in words:
                self._holders.setdefault(word, []).append(index)

    def closest(self, query: str) -> float:
        """Jaccard index of the words of the most similar question, 0 to 1."""
        words = set(normalized(query).split())
        shared: Counter[int] = Counter()
        for word in words:
            shared.update(self._holders.get(word, ()))
        return max(
            (count / (len(words) + len(self._sets[i]) - count) for i, count in shared.items()),
            default=0.0,
        )
