"""Rerankers that run here and their published scores: the documentation's table and ``models``.

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

from collections.abc import Iterator
from dataclasses import dataclass

from .settings import BUILT_IN_MODEL


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
    conversions: tuple[str, ...] = ()

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
        "C-MTEB rerank 65.4, MTEB 48.9",
        "fast on a CPU, in Chinese or English",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-large", "encoder", 560, "Chinese, English", 512, "MIT",
        "C-MTEB rerank 66.1, MTEB 51.0",
        "a little better than base, three times its work",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-v2-m3", "encoder", 568, "100+", 8192, "Apache-2.0",
        "BEIR 55.4, MIRACL 72.8, C-MTEB retrieval 71.8, MTEB 55.3",
        "the default: any language, long texts, on a GPU of any size",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-v2-gemma", "decoder", 2506, "100+", 8192, "Apache-2.0",
        "BEIR 60.7, MIRACL 73.4, C-MTEB retrieval 71.7",
        "best on BEIR and MIRACL, where a GPU is at hand",
        "bge-reranker-v2-gemma",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-v2-minicpm-layerwise", "layerwise", 2725, "Chinese, English", 2048,
        "Apache-2.0",
        "28 layers: BEIR 59.9, MIRACL 67.8, C-MTEB retrieval 73.5",
        "best on Chinese; cutoff_layers trades quality for speed",
        "bge-reranker-v2-minicpm-layerwise",
    ),
    CatalogEntry(
        "BAAI/bge-reranker-v2.5-gemma2-lightweight", "lightweight", 9242, "100+", 4096, "Gemma",
        "–",
        "the largest; compress_ratio and cutoff_layers save most of its work",
        "bge-reranker-v2.5-gemma2-lightweight",
    ),
    CatalogEntry(
        "cross-encoder/ettin-reranker-17m-v1", "encoder", 18, "English", 8192, "Apache-2.0",
        "MTEB 55.8",
        "English on the smallest CPUs: as good as bge-reranker-v2-m3 there",
    ),
    CatalogEntry(
        "cross-encoder/ettin-reranker-32m-v1", "encoder", 33, "English", 8192, "Apache-2.0",
        "MTEB 57.8",
        "English on a CPU: most quality for each millisecond",
    ),
    CatalogEntry(
        "cross-encoder/ettin-reranker-68m-v1", "encoder", 69, "English", 8192, "Apache-2.0",
        "MTEB 59.2",
        "English on a CPU, better and slower",
    ),
    CatalogEntry(
        "cross-encoder/ettin-reranker-150m-v1", "encoder", 151, "English", 8192, "Apache-2.0",
        "MTEB 59.9",
        "English on a GPU, or where a CPU has time",
    ),
    CatalogEntry(
        "cross-encoder/ettin-reranker-400m-v1", "encoder", 402, "English", 8192, "Apache-2.0",
        "MTEB 60.9",
        "English on a GPU",
    ),
    CatalogEntry(
        "cross-encoder/ettin-reranker-1b-v1", "encoder", 1000, "English", 8192, "Apache-2.0",
        "MTEB 61.1",
        "best encoder on English, as good as mxbai-rerank-large-v2",
    ),
    CatalogEntry(
        "Alibaba-NLP/gte-reranker-modernbert-base", "encoder", 149, "English", 8192, "Apache-2.0",
        "MTEB 58.4",
        "English; one of the most downloaded",
    ),
    CatalogEntry(
        "ibm-granite/granite-embedding-reranker-english-r2", "encoder", 149, "English", 8192,
        "Apache-2.0",
        "MTEB 56.6",
        "English, from IBM",
    ),
    CatalogEntry(
        "jinaai/jina-reranker-v2-base-multilingual", "encoder", 278, "100+", 1024,
        "CC-BY-NC-4.0: no commercial use",
        "–",
        "many languages on a CPU, code",
    ),
    CatalogEntry(
        "Qwen/Qwen3-Reranker-0.6B", "decoder", 596, "100+", 32768, "Apache-2.0",
        "MTEB 59.4",
        "follows an instruction, long texts",
        "qwen3-reranker", ("tomaarsen/Qwen3-Reranker-0.6B-seq-cls",),
    ),
    CatalogEntry(
        "Qwen/Qwen3-Reranker-4B", "decoder", 4022, "100+", 32768, "Apache-2.0",
        "MTEB 63.7",
        "like 0.6B, better and slower",
        "qwen3-reranker", ("tomaarsen/Qwen3-Reranker-4B-seq-cls",),
    ),
    CatalogEntry(
        "Qwen/Qwen3-Reranker-8B", "decoder", 8188, "100+", 32768, "Apache-2.0",
        "–",
        "like 4B, twice its work",
        "qwen3-reranker", ("tomaarsen/Qwen3-Reranker-8B-seq-cls",),
    ),
    CatalogEntry(
        "mixedbread-ai/mxbai-rerank-base-v2", "decoder", 494, "100+", 8192, "Apache-2.0",
        "BEIR 55.6, MTEB 59.2",
        "a small decoder; also code",
        "mxbai-rerank-v2",
    ),
    CatalogEntry(
        "mixedbread-ai/mxbai-rerank-large-v2", "decoder", 1544, "100+", 8192, "Apache-2.0",
        "BEIR 57.5, MTEB 61.2",
        "a middle-sized decoder; also code",
        "mxbai-rerank-v2",
    ),
    CatalogEntry(
        "nvidia/llama-nemotron-rerank-1b-v2", "bidirectional", 1236, "26", 8192,
        "NVIDIA Open Model",
        "–",
        "many languages on a GPU, from NVIDIA",
        "nemotron-rerank",
    ),
    CatalogEntry(
        "zeroentropy/zerank-1-small-reranker", "decoder", 1721, "English", 32768, "Apache-2.0",
        "–",
        "English in special fields; needs sentence-transformers' files beside its weights",
    ),
    CatalogEntry(
        "zeroentropy/zerank-2-reranker", "decoder", 4022, "English", 32768,
        "CC-BY-NC-4.0: no commercial use",
        "MTEB 53.0",
        "English in special fields: finance, law, medicine",
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
