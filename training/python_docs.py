"""Questions about Python with the passages of its language reference that answer them.

A kind of text that training never saw. The questions are our own, written in other words than the
reference's; the passages are those of the interpreter that runs this (`help("with")` and the like).
The answers were marked by hand, then completed by reading what BM25 and the built-in model ranked
first and was not marked yet.

python -m training.python_docs --out python-docs
"""

import argparse
import json
from pathlib import Path

from bge_rerank_integrations.cli.passages import python_reference
from bge_rerank_integrations.evaluation import Collection
from training.texts import normalized

QUESTIONS = Path(__file__).with_suffix(".json")


def python_docs() -> Collection:
    """The collection; questions that this Python's reference does not answer are left out.

    An answer is marked by a phrase, and every passage with the phrase is relevant: the reference
    differs a little between Python's versions, and so do its passages.
    """
    documents = {str(i): passage.content for i, passage in enumerate(python_reference())}
    words = {name: f" {normalized(text)} " for name, text in documents.items()}
    queries: dict[str, str] = {}
    relevance: dict[str, dict[str, int]] = {}
    for number, row in enumerate(json.loads(QUESTIONS.read_text(encoding="utf-8"))):
        phrases = [f" {normalized(answer['phrase'])} " for answer in row["answers"]]
        relevant = [name for name, text in words.items() if any(p in text for p in phrases)]
        if relevant:
            queries[str(number)] = row["question"]
            relevance[str(number)] = dict.fromkeys(relevant, 1)
    return Collection("Python documentation", queries, documents, relevance)


def main() -> None:
    """Write the collection in BEIR's layout, for `bge-rerank eval`."""
    parser = argparse.ArgumentParser(description="Write questions about Python in BEIR's layout.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    folder: Path = parser.parse_args().out
    collection = python_docs()
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", collection.documents), ("queries", collection.queries)):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    judged = [
        f"{query}\t{document}\t{value}\n"
        for query, documents in collection.relevance.items()
        for document, value in documents.items()
    ]
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(header + "".join(judged), encoding="utf-8")
    print(f"{len(collection.queries)} questions, {len(collection.documents)} passages")


if __name__ == "__main__":
    main()
