"""What `tune` adds to the built-in model on collections that it has not met.

Two sets of pairs of which nothing is trained on, beer (Stack Exchange) and benefits for veterans
(VA.gov), and scifact-test, whose judged abstracts are not trained on. A third of the questions is
held out.

python -m training.tuned --pairs mix.jsonl --collections collections --work /tmp/tuned \
    --out training/results-tuned.json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from bge_rerank_integrations.evaluation.measures import PRIMARY
from bge_rerank_integrations.tuning import Tuned, tune
from training.evaluate import Figures, write
from training.records import UNSEEN, from_pairs

HELD_OUT = 1 / 3


def write_lines(pairs: Path, folder: Path) -> list[Path]:
    """Write each set as FlagEmbedding's lines."""
    questions = list(from_pairs(pairs))
    files = []
    for name in sorted(UNSEEN):
        rows = [
            {"query": one.query, "pos": [passage.text for passage in one.positives]}
            for one in questions
            if one.source == name
        ]
        files.append(folder / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return files


def figures(tuned: Tuned) -> Figures:
    """Counts, nDCG@10 of the first stage, the base and the tuned model, and who wins."""
    report = tuned.report
    first_stage, base, after = (system.means[PRIMARY] for system in report.systems)
    before_and_after = (report.systems[1].name, report.systems[2].name)
    compared = next(c for c in report.comparisons if (c.baseline, c.system) == before_and_after)
    return {
        **{name: float(count) for name, count in asdict(tuned.counts).items()},
        "bm25": first_stage,
        "base": base,
        "tuned": after,
        "gain": tuned.gain,
        "wins": float(compared.wins),
        "losses": float(compared.losses),
        "p": compared.p_value,
    }


def main() -> None:
    """Tune on one collection after the other, print the figures and write them."""
    parser = argparse.ArgumentParser(description="Tune the built-in model on unseen collections.")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--collections", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for data and models")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--only", help="name of one collection")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sources = [
        *write_lines(arguments.pairs, arguments.work),
        arguments.collections / "scifact-test",
    ]
    results: dict[str, Figures] = {}
    if arguments.only and arguments.out and arguments.out.exists():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
    for source in sources:
        if arguments.only in (None, source.stem):
            tuned = tune(
                source,
                arguments.work / f"{source.stem}-tuned",
                base=arguments.model,
                minutes=arguments.minutes,
                held_out=HELD_OUT,
                show_progress=True,
            )
            results[source.stem] = {"minutes": arguments.minutes, **figures(tuned)}
            print(json.dumps(results[source.stem], indent=1), flush=True)
            if arguments.out:
                write(results, arguments.out)


if __name__ == "__main__":
    main()
