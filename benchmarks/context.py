"""Words removed against answers kept, by threshold; and what the sentences cost beside reranking.

python -m benchmarks.context tiny --sections selqa selqa-ass-test.json \
    --sections squad xquad.en.json --sections trecqa trecqa-wang-dev.jsonl --questions 200 \
    --collection collections/qed-nq-dev --collection collections/scifact-test --queries 20 \
    --output benchmarks/results/context.json --plot benchmarks/results/context.png

The first two files are in https://github.com/emorynlp/selqa (``ass``) and
https://github.com/google-deepmind/xquad.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.labelled_sections import READERS, Range, Section
from benchmarks.machine import describe_machine
from bge_rerank_integrations import RerankEngine
from bge_rerank_integrations.context.selection import prune, staying
from bge_rerank_integrations.evaluation import bm25, read_beir
from bge_rerank_integrations.highlighting import SentenceWindows, Span

THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)
Scored = Sequence[tuple[Section, Sequence[Span]]]


def main() -> None:
    """Measure, print one JSON object, and write it and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument(
        "--sections", nargs=2, action="append", default=[], metavar=("FORM", "FILE"),
        help=f"sections with answers; FORM is one of {', '.join(READERS)}",
    )  # fmt: skip
    parser.add_argument("--questions", type=int, default=400, help="a sample of so many a file")
    parser.add_argument(
        "--collection", type=Path, action="append", default=[], help="BEIR folder, for the cost"
    )
    parser.add_argument("--queries", type=int, default=50, help="a sample of so many a collection")
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--top-n", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    with RerankEngine(arguments.model) as engine:
        sections = [
            _pruning(engine, _sample(form, Path(file), arguments.questions), Path(file).stem)
            for form, file in arguments.sections
        ]
        dtype = engine.dtype
    with RerankEngine(arguments.model) as engine:
        cost = [
            _cost(engine, folder, arguments.queries, arguments.candidates, arguments.top_n)
            for folder in arguments.collection
        ]
    report = {
        "model": Path(arguments.model).name,
        "dtype": dtype,
        "sections": sections,
        "cost": cost,
        "machine": describe_machine(),
    }
    print(json.dumps(report, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        _plot(report, arguments.plot)


def _sample(form: str, path: Path, count: int) -> list[Section]:
    sections = [section for section in READERS[form](path) if section.answers]
    return random.Random(0).sample(sections, min(count, len(sections)))


def _pruning(engine: RerankEngine, sections: Sequence[Section], name: str) -> dict[str, Any]:
    """Words removed and answers kept, with the scores of ``highlight`` and with simpler ones."""
    scored = [
        (section, engine.highlight(section.question, [section.text])[0]) for section in sections
    ]
    return {
        "name": name,
        "questions": len(sections),
        "words": sum(len(section.text.split()) for section in sections),
        "sentences": sum(len(spans) for _, spans in scored),
        "highlight, share": [_at(scored, share=share) for share in SHARES],
        "highlight": [_at(scored, threshold) for threshold in THRESHOLDS],
        "one window": [
            _at(
                [(section, _one_window(engine, section, spans)) for section, spans in scored], least
            )
            for least in THRESHOLDS
        ],
        "alone": [
            _at([(section, _alone(engine, section, spans)) for section, spans in scored], least)
            for least in THRESHOLDS
        ],
    }


def _one_window(engine: RerankEngine, section: Section, spans: Sequence[Span]) -> list[Span]:
    """The sentences with the scores that they get together with the sentence before."""
    # the last window has the last sentence alone
    windows = SentenceWindows([section.text]).texts[:-1]
    return _with_scores(spans, engine.score(section.question, windows))


def _alone(engine: RerankEngine, section: Section, spans: Sequence[Span]) -> list[Span]:
    """The sentences with the scores that they get alone."""
    texts = [section.text[span.start : span.end].strip() for span in spans]
    return _with_scores(spans, engine.score(section.question, texts))


def _with_scores(spans: Sequence[Span], scores: Sequence[float]) -> list[Span]:
    return [Span(span.start, span.end, score) for span, score in zip(spans, scores, strict=True)]


def _at(
    scored: Scored, threshold: float | None = None, share: float | None = None
) -> dict[str, float]:
    """One setting's share of words removed, and of sections whose answer stays."""
    words = left = kept = 0
    for section, spans in scored:
        words += len(section.text.split())
        left += len(prune(section.text, spans, threshold, share).split())
        stays = staying(spans, threshold, share)
        kept += any(_is_left(answer, spans, stays) for answer in section.answers)
    return {
        **({"threshold": threshold} if share is None else {"share": share}),
        "words_removed": round(1 - left / words, 4),
        "answers_kept": round(kept / len(scored), 4),
    }


def _is_left(answer: Range, spans: Sequence[Span], stays: Sequence[bool]) -> bool:
    """Whether all sentences that an answer is part of stay."""
    start, end = answer
    return all(
        is_left or span.end <= start or end <= span.start
        for is_left, span in zip(stays, spans, strict=True)
    )


def _cost(
    engine: RerankEngine, folder: Path, queries: int, candidates: int, top_n: int
) -> dict[str, Any]:
    """Tokens and CPU seconds of reranking, and of highlighting what it keeps."""
    collection = read_beir(folder).sample(queries)
    order = bm25(collection, candidates).order
    tokens = {"reranking": 0, "highlighting": 0}
    cpu_s = {"reranking": 0.0, "highlighting": 0.0}
    for query, text in collection.queries.items():
        documents = [collection.documents[document] for document in order[query]]
        before, started = engine.stats().tokens, time.process_time()
        ranking = engine.rerank(text, documents, top_n=top_n)
        between, reranked = engine.stats().tokens, time.process_time()
        engine.highlight(text, [documents[kept.index] for kept in ranking])
        tokens["reranking"] += between - before
        tokens["highlighting"] += engine.stats().tokens - between
        cpu_s["reranking"] += reranked - started
        cpu_s["highlighting"] += time.process_time() - reranked
    return {
        "collection": collection.name,
        "queries": len(collection.queries),
        "candidates": candidates,
        "top_n": top_n,
        "tokens": tokens,
        "more_tokens": round(tokens["highlighting"] / tokens["reranking"], 4),
        "cpu_s": {name: round(seconds, 2) for name, seconds in cpu_s.items()},
        "more_cpu_s": round(cpu_s["highlighting"] / cpu_s["reranking"], 4),
    }


def _plot(report: dict[str, Any], path: Path) -> None:
    """Draw one curve over thresholds for each file of sections."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for color, sections in enumerate(report["sections"]):
        for name, style in (("highlight, share", "o-"), ("highlight", ".--"), ("alone", ".:")):
            rows = sections[name]
            axes.plot(
                [100 * row["words_removed"] for row in rows],
                [100 * row["answers_kept"] for row in rows],
                style, color=f"C{color}", label=f"{sections['name']}, {name}", alpha=0.8,
            )  # fmt: skip
            for row in rows if name == "highlight, share" else ():
                axes.annotate(
                    f" {row['share']}", (100 * row["words_removed"], 100 * row["answers_kept"]),
                    color=f"C{color}", fontsize="x-small", va="bottom",
                )  # fmt: skip
    axes.axhline(97, color="0.7", linewidth=1)
    axes.axvline(60, color="0.7", linewidth=1)
    axes.set(
        xlabel="words removed, %",
        ylabel="answers kept, %",
        title=f"Pruning with {report['model']}: prune_share (its values), prune, sentences alone",
    )
    axes.legend(fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
