"""Rerankers that run here and their published scores: the documentation's table and ``models``.

They are listed in ``catalog.json``, beside this file.

Scores are nDCG@10 averages, as published by the authors:

* BGE: FlagEmbedding, `research/llm_reranker/evaluation` (BEIR over bge-large-en-v1.5, MIRACL over
  bge-m3, C-MTEB retrieval over bge-large-zh-v1.5; top 100, length 1024); C-MTEB reranking (average
  of its tasks' measures) from `research/C_MTEB/README.md`.
* mxbai: the models' pages on mixedbread.com (BEIR).
* MTEB: mean nDCG@10 × 100 over the retrieval tasks of MTEB(eng, v2), top 100 of six first stages,
  from the Ettin rerankers' announcement (huggingface/blog, `ettin-reranker.md`).
* zerank-2: the same, with texts cut at 8192 tokens.
* The built-in model: its model card.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One model.

    :param model: value of ``model=``.
    :param family: encoder, decoder, bidirectional (a decoder without the causal mask), layerwise or
        lightweight.
    :param parameters_m: millions of parameters.
    :param max_length: tokens of a pair that it can read.
    :param quality: published averages, or "–".
    :param choose_it: when to choose it.
    :param recipe: the name of how it scores, where its files do not say it.
    :param conversions: the same model as a classifier of one label.
    """

    model: str
    family: str
    parameters_m: int
    languages: str
    max_length: int
    license: str
    quality: str
    choose_it: str
    recipe: str | None = None
    conversions: Sequence[str] = ()

    @property
    def memory_gb(self) -> float:
        """Gigabytes of its weights in half precision."""
        return self.parameters_m * 2 / 1000


_FILE = Path(__file__).with_suffix(".json")
CATALOG = tuple(CatalogEntry(**each) for each in json.loads(_FILE.read_text(encoding="utf-8")))

HEADERS = (
    "model", "family", "parameters", "memory (half)", "languages", "tokens", "license", "published",
    "choose it for",
)  # fmt: skip


def languages_of(model: str) -> str | None:
    """The languages that a model reads; None for a model that the catalog does not have."""
    return next((entry.languages for entry in CATALOG if entry.model == model), None)


def rows() -> Iterator[tuple[str, ...]]:
    """The rows of the catalog, in the order of ``HEADERS``."""
    for entry in CATALOG:
        yield (
            entry.model,
            entry.family,
            f"{entry.parameters_m} M",
            f"{entry.memory_gb:.2g} GB",
            entry.languages,
            str(entry.max_length),
            entry.license,
            entry.quality,
            entry.choose_it,
        )
