"""What reranking and blending add to the first stages that users have: BM25, dense, and both fused.

python -m training.first_stages --collections collections --embedder all-MiniLM-L6-v2 \
    --out training/results-first-stages.json

The embedder searches over titles and texts with 256 tokens and cosines. Of each collection the
first 50 candidates of a stage are reranked; those of ``manuals-dev`` come with it. With ``--only``
the figures of other collections stay in the file as they are.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.context.selection import CountTokens, Kept, within_budget
from bge_rerank_integrations.evaluation import (
    Collection,
    CorpusPassage,
    Run,
    blend,
    bm25,
    compare,
    fuse,
    means,
    measure,
    read_beir,
    text_only,
    titled,
)
from bge_rerank_integrations.evaluation.measures import PRIMARY
from bge_rerank_integrations.ranking import RANK_OFFSET
from training.evaluate import Figures, write

DEPTH = 50
WEIGHTS, OFFSETS = (0.3, 0.5, 0.7), (5, 10, 60)
KEEP = (10, 20, 30)
BUDGETS = (1000, 2000, 4000)
Logits = Mapping[str, Mapping[str, float]]


def lines_of_title_and_text(passage: CorpusPassage) -> str:
    """As the candidates of ``manuals-dev`` were searched."""
    return f"{passage.title}\n{passage.text}"


FORMS: dict[str, Callable[[CorpusPassage], str]] = {
    "manuals-dev": lines_of_title_and_text,
    "scifact-test": titled,
    "vaswani": text_only,
}


def dense(collection: Collection, embedder: SentenceTransformer) -> Run:
    """The nearest documents by the cosine of embeddings."""
    names = list(collection.documents)
    with torch.autocast("cpu", torch.bfloat16):
        documents, queries = (
            embedder.encode(
                list(texts), normalize_embeddings=True, convert_to_tensor=True, batch_size=64
            ).float()
            for texts in (collection.documents.values(), collection.queries.values())
        )
    found = (queries @ documents.T).topk(min(DEPTH, len(names))).indices.tolist()
    pairs = zip(collection.queries, found, strict=True)
    return Run("dense", {query: [names[index] for index in indices] for query, indices in pairs})


def first_stages(folder: Path, collection: Collection, embedder: SentenceTransformer) -> list[Run]:
    """BM25, dense and fused by reciprocal ranks."""
    given = folder / "candidates.jsonl"
    if given.exists():
        rows = [json.loads(line) for line in given.read_text("utf-8").splitlines()]
        stages = [
            Run(name, {row["query_id"]: row[key] for row in rows})
            for name, key in (("BM25", "bm25"), ("dense", "dense"))
        ]
    else:
        stages = [bm25(collection, DEPTH), dense(collection, embedder)]
    return [*stages, fuse(stages, DEPTH)]


def score(engine: RerankEngine, collection: Collection, stages: Sequence[Run]) -> Logits:
    """The logit of every candidate of every stage."""
    logits = {}
    for query, text in collection.queries.items():
        names = list(dict.fromkeys(name for stage in stages for name in stage.order[query]))
        scores = engine.score(text, [collection.documents[name] for name in names])
        logits[query] = dict(zip(names, scores.logits, strict=True))
    return logits


def reranked(stage: Run, logits: Logits) -> Run:
    """The candidates of a stage by their logits."""
    order = {
        query: sorted(found, key=lambda name: -logits[query][name])
        for query, found in stage.order.items()
    }
    return Run("reranked", order)


def blended(stage: Run, run: Run, weight: float, offset: int = RANK_OFFSET) -> Run:
    """The candidates by weighted reciprocal ranks, under a name that tells both numbers."""
    name = f"blended, weight {weight}, k {offset}"
    return replace(blend(run, stage, weight, offset), name=name)


def quality(collection: Collection, run: Run, before: Run | None = None) -> Figures:
    """Means, and how many queries have a relevant document first and within three."""
    values = measure(collection.relevance, run.order, (3, 10))
    figures: Figures = {name: value for name, value in means(values).items() if name != "MAP"}
    for most in (1, 3):
        answered = (
            any(collection.relevance[query].get(name, 0) > 0 for name in run.order[query][:most])
            for query in collection.queries
        )
        figures[f"answer within {most}"] = float(sum(answered))
    if before is not None:
        was = measure(collection.relevance, before.order)[PRIMARY]
        compared = compare("before", was, "after", values[PRIMARY])
        figures |= {"wins": float(compared.wins), "losses": float(compared.losses)}
        figures["p"] = compared.p_value
    return figures


def relevant_lost(collection: Collection, stage: Run, run: Run, keep: int) -> float:
    """The share of a stage's relevant candidates that the model's first ``keep`` leave out."""
    retrieved = lost = 0
    for query, found in stage.order.items():
        relevant = {name for name in found if collection.relevance[query].get(name, 0) > 0}
        retrieved += len(relevant)
        lost += len(relevant - set(run.order[query][:keep]))
    return lost / retrieved


def answers_in_budget(
    count: CountTokens, collection: Collection, run: Run, max_tokens: int
) -> float:
    """Queries with a relevant document among those that fit a budget of tokens."""
    answered = 0
    for query, found in run.order.items():
        documents = (Kept(i, None, collection.documents[name]) for i, name in enumerate(found))
        kept = within_budget(documents, [""] * len(found), max_tokens, count)
        answered += any(collection.relevance[query].get(found[it.index], 0) > 0 for it in kept)
    return float(answered)


def kinds(folder: Path) -> dict[str, set[str]]:
    """Kind → ids of its queries, where the collection names kinds."""
    found: dict[str, set[str]] = {}
    for line in (folder / "queries.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if "type" in row:
            found.setdefault(row["type"], set()).add(row["_id"])
    return found


def evaluate(
    engine: RerankEngine, folder: Path, embedder: SentenceTransformer, questions: int
) -> dict[str, Figures]:
    """All figures of a collection, by stage and order; of a sample where questions are more."""
    collection = read_beir(folder, form=FORMS[folder.name]).sample(questions)
    stages = first_stages(folder, collection, embedder)
    logits = score(engine, collection, stages)
    results: dict[str, Figures] = {}
    count = cache(engine.count_tokens)
    for stage in stages:
        run = reranked(stage, logits)
        runs = [stage, run, *(blended(stage, run, weight) for weight in WEIGHTS)]
        runs += [blended(stage, run, 0.5, offset) for offset in OFFSETS if offset != RANK_OFFSET]
        for one in runs:
            before = None if one is stage else stage
            figures = quality(collection, one, before)
            for most in BUDGETS:
                figures[f"answers in {most} tokens"] = answers_in_budget(
                    count, collection, one, most
                )
            results[f"{folder.name}, {stage.name}: {'' if one is stage else one.name}"] = figures
        for keep in KEEP:
            results[f"{folder.name}, {stage.name}: first pass, keep {keep}"] = {
                "relevant lost": relevant_lost(collection, stage, run, keep)
            }
    for kind, queries in kinds(folder).items():
        part = collection.only(queries)
        for one in (stages[-1], run, blended(stages[-1], run, 0.5)):
            order = {query: one.order[query] for query in part.queries}
            results[f"{folder.name}, {kind}: {one.name}"] = {
                "queries": float(len(queries)), **quality(part, Run(one.name, order))
            }  # fmt: skip
    return results


def main() -> None:
    """Read the arguments, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collections", type=Path, required=True)
    parser.add_argument("--embedder", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--only", choices=FORMS, nargs="+", default=list(FORMS))
    parser.add_argument("--questions", type=int, default=100, help="of a collection, at most")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    embedder = SentenceTransformer(str(arguments.embedder), device="cpu", local_files_only=True)
    embedder.max_seq_length = 256
    results: dict[str, Figures] = {}
    if arguments.out.exists() and set(arguments.only) != set(FORMS):
        results = json.loads(arguments.out.read_text("utf-8"))
    with RerankEngine(arguments.model, dtype="bfloat16") as engine:
        for name in arguments.only:
            folder = arguments.collections / name
            results |= evaluate(engine, folder, embedder, arguments.questions)
            write(results, arguments.out)


if __name__ == "__main__":
    main()
