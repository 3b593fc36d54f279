"""What `tune` adds to the built-in model on collections that it has not met.

Benefits for veterans (VA.gov) and beer (Stack Exchange), two sets of pairs of which nothing is
trained on; scifact-test, whose judged abstracts are not trained on; and the docstrings of Python's
standard library. A third of the questions is held out.

python -m training.tuned --pairs mix.jsonl --collections collections --work /tmp/tuned \
    --out training/results-tuned.json
"""

import argparse
import importlib
import inspect
import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bge_rerank_integrations.evaluation.measures import PRIMARY
from bge_rerank_integrations.tuning import Tuned, tune
from training.evaluate import Figures, write
from training.records import UNSEEN, from_pairs

HELD_OUT = 1 / 3

# they print, open a window, or are absent from many installations
NOT_IMPORTED = {"antigravity", "idlelib", "lib2to3", "this", "tkinter", "turtle", "turtledemo"}


def write_lines(pairs: Path, folder: Path) -> list[Path]:
    """Write each set, and Python's docstrings, as FlagEmbedding's lines."""
    asked: dict[str, list[tuple[str, list[str]]]] = {name: [] for name in sorted(UNSEEN)}
    for one in from_pairs(pairs):
        if one.source in UNSEEN:
            asked[one.source].append((one.query, [passage.text for passage in one.positives]))
    asked["docstrings"] = [(query, [text]) for query, text in docstrings().items()]
    files = []
    for name, questions in asked.items():
        files.append(folder / f"{name}.jsonl")
        lines = (json.dumps({"query": query, "pos": texts}) for query, texts in questions)
        files[-1].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return files


def docstrings() -> dict[str, str]:
    """First paragraphs of the standard library's docstrings, and the texts that follow them.

    What is inherited has the same docstring under many names: the first one counts.
    """
    answers: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for path, member in _members():
            first, _, rest = (inspect.getdoc(member) or "").partition("\n\n")
            if 4 <= len(first.split()) <= 25 and len(rest.split()) >= 12:
                answers.setdefault(" ".join(first.split()), f"{path}\n{rest}")
    return answers


def _members() -> Iterator[tuple[str, object]]:
    """Public functions, classes and methods of the standard library, by name."""
    for name in sorted(sys.stdlib_module_names - NOT_IMPORTED):
        if name.startswith("_"):
            continue
        try:
            module = importlib.import_module(name)
        except ImportError:
            # of another system
            continue
        for attribute, value in inspect.getmembers(module):
            found = {attribute: value}
            if inspect.isclass(value):
                found |= {f"{attribute}.{key}": member for key, member in vars(value).items()}
            for path, member in found.items():
                if callable(member) and not path.rpartition(".")[2].startswith("_"):
                    yield f"{name}.{path}", member


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
    parser.add_argument("--only", help="name of one collection; the others' figures stay")
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
