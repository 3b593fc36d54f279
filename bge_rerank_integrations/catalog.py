"""Rerankers that run here and their published scores: the README's table and ``models``.

Scores are nDCG@10 averages, as published by the authors:

* BGE: FlagEmbedding, `research/llm_reranker/evaluation` (BEIR over bge-large-en-v1.5, MIRACL over
  bge-m3, C-MTEB retrieval over bge-large-zh-v1.5; top 100, length 1024); C-MTEB reranking (average
  of its tasks' measures) from `research/C_MTEB/README.md`.
* mxbai: the models' pages on mixedbread.com (BEIR).
* The built-in model: its model card.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bge_rerank_integrations.settings import BUILT_IN_MODEL


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One model.

    :param model: value of ``model=``.
    :param family: encoder, decoder, layerwise or lightweight.
    :param parameters_m: millions of parameters.
    :param max_length: tokens of a pair that it can read.
    :param quality: published averages, or "–".
    :param choose_it: when to choose it.
    """

    model: str
    family: str
    parameters_m: int
    languages: str
    max_length: int
    license: str
    quality: str
    choose_it: str

    @property
    def memory_gb(self) -> float:
        """Gigabytes of its weights in half precision."""
        return self.parameters_m * 2 / 1000


CATALOG = (
    CatalogEntry(
        BUILT_IN_MODEL, "encoder", 23, "English", 512, "Apache-2.0",
        "see its model card",
        "first steps, tests, offline, smallest machines",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-base", "encoder", 278, "Chinese, English", 512, "MIT",
        "C-MTEB rerank 65.4",
        "fast on a CPU, in Chinese or English",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-large", "encoder", 560, "Chinese, English", 512, "MIT",
        "C-MTEB rerank 66.1",
        "a little better than base, three times its work",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-v2-m3", "encoder", 568, "100+", 8192, "Apache-2.0",
        "BEIR 55.4, MIRACL 72.8, C-MTEB retrieval 71.8",
        "the default: any language, long texts, any GPU",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-v2-gemma", "decoder", 2506, "100+", 8192, "Apache-2.0",
        "BEIR 60.7, MIRACL 73.4, C-MTEB retrieval 71.7",
        "best on BEIR and MIRACL, where a GPU is at hand",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-v2-minicpm-layerwise", "layerwise", 2725, "Chinese, English", 2048,
        "Apache-2.0",
        "28 layers: BEIR 59.9, MIRACL 67.8, C-MTEB retrieval 73.5",
        "best on Chinese; cutoff_layers trades quality for speed",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-v2.5-gemma2-lightweight", "lightweight", 9242, "100+", 4096, "Gemma",
        "–",
        "the largest; compress_ratio and cutoff_layers save most of its work",
    ),
    CatalogEntry(
        "Qwen/Qwen3-Reranker-0.6B", "decoder", 596, "100+", 32768, "Apache-2.0",
        "–",
        "follows an instruction, long texts",
    ),
    CatalogEntry(
        "Qwen/Qwen3-Reranker-4B", "decoder", 4022, "100+", 32768, "Apache-2.0",
        "–",
        "like 0.6B, better and slower",
    ),
    CatalogEntry(
        "mixedbread-ai/mxbai-rerank-base-v2", "decoder", 494, "100+", 8192, "Apache-2.0",
        "BEIR 55.6",
        "a small decoder; also code",
    ),
    CatalogEntry(
        "mixedbread-ai/mxbai-rerank-large-v2", "decoder", 1544, "100+", 8192, "Apache-2.0",
        "BEIR 57.5",
        "a middle-sized decoder; also code",
    ),
)  # fmt: skip

HEADERS = (
    "model",
    "family",
    "parameters",
    "memory (half)",
    "languages",
    "tokens",
    "license",
    "published",
    "choose it for",
)


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


def markdown() -> str:
    """The catalog as the README's table."""
    lines = ["| " + " | ".join(HEADERS) + " |", "|" + " --- |" * len(HEADERS)]
    lines += ["| " + " | ".join((f"`{name}`", *rest)) + " |" for name, *rest in rows()]
    return "\n".join(lines)
