"""The training data with its negatives, split into a training and a held-out part."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.negatives import mine
from training.records import Data, Passage, Question, load

HELD_OUT_SHARE = 0.02
SEED = 7


@dataclass(frozen=True)
class Prepared:
    """Data, mined negatives, and the (index, question) pairs of both parts."""

    data: Data
    mined: dict[int, list[Passage]]
    training: list[tuple[int, Question]]
    held_out: list[tuple[int, Question]]


def prepare(pairs: Path, collections: Path) -> Prepared:
    """Load, mine and split. Deterministic: the same files give the same parts."""
    data = load(pairs, collections)
    return Prepared(data, mine(data), *hold_out(data.questions))


def hold_out(
    questions: Sequence[Question],
) -> tuple[list[tuple[int, Question]], list[tuple[int, Question]]]:
    """Split into a training and a held-out part of (index, question) pairs."""
    rng = random.Random(SEED)
    training: list[tuple[int, Question]] = []
    held_out: list[tuple[int, Question]] = []
    for index, question in enumerate(questions):
        part = held_out if rng.random() < HELD_OUT_SHARE else training
        part.append((index, question))
    return training, held_out
