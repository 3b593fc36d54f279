"""``bge-rerank rerank``: the passages of files, best first."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from ..highlighting import Highlighter, Span
from ..jsonl import Place, json_objects, read_lines, string
from ..languages import unread_language
from ..ranking import Ranking, rank
from ..settings import BUILT_IN_MODEL
from .options import Model, with_settings

if TYPE_CHECKING:
    from .. import RerankEngine


STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class FilePassage:
    """One passage and where it came from.

    :param place: its file and line; the file ``-`` is standard input.
    :param id: the JSON object's ``id`` or ``_id``, of any type.
    :param title: the JSON object's ``title``.
    """

    text: str
    place: Place
    id: object = None
    title: str = ""

    @property
    def content(self) -> str:
        """What the model reads: title and text, as the BEIR benchmarks join them."""
        return f"{self.title} {self.text}".strip()


class Split(str, Enum):
    """What one passage of a text file is."""

    LINE = "line"
    PARAGRAPH = "paragraph"
    FILE = "file"


def read_passages(
    names: Iterable[str], *, jsonl: bool, split: Split = Split.LINE
) -> list[FilePassage]:
    """Read passages from files; blank ones are skipped.

    :param names: files, or ``-`` for standard input; ``.jsonl`` files are JSON Lines.
    :param jsonl: read every file as JSON Lines, whatever its name.
    :param split: what a passage is in other files; its place is that of its first line.
    :raises InputError: naming the file, and the line where one is wrong.
    """
    return [passage for name in names for passage in _read_file(name, jsonl, split)]


def _read_file(name: str, jsonl: bool, split: Split) -> Iterator[FilePassage]:
    stream = typer.get_binary_stream("stdin") if name == STANDARD_INPUT else None
    if not (jsonl or name.endswith(".jsonl")):
        lines = read_lines(name, stream, whole=split is not Split.LINE)
        # neighbors with equal keys are one passage
        keys: dict[Split, Callable[[tuple[Place, str]], object]] = {
            Split.LINE: itemgetter(0),
            Split.PARAGRAPH: lambda line: line[1].isspace(),
            Split.FILE: bool,
        }
        for _, group in groupby(lines, keys[split]):
            (place, first), *rest = group
            if text := "".join([first, *(line for _, line in rest)]).strip():
                yield FilePassage(text, place)
        return
    for place, given in json_objects(name, stream):
        yield FilePassage(
            string(given, "text", place),
            place,
            given.get("id", given.get("_id")),
            string(given, "title", place, default=""),
        )


@with_settings(but=("normalize",))
def rerank(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="What the passages are ranked for.")
    ] = "",
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Text files, .jsonl files with 'text' (and 'id', 'title') on each line, or - for "
            "standard input.",
        ),
    ] = None,
    top_n: Annotated[
        int | None, typer.Option(min=1, help="Keep this many passages.", show_default="all")
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(help="Keep passages with at least this score.", show_default="none"),
    ] = None,
    retrieval_weight: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Weight of the order in the files, blended with the model's."
        ),
    ] = 0.0,
    model: Model = BUILT_IN_MODEL,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show logits instead of scores from 0 to 1.")
    ] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Read every file as JSON Lines, whatever its name.")
    ] = False,
    split: Annotated[Split, typer.Option(help="What one passage of a text file is.")] = Split.LINE,
    highlight: Annotated[
        bool,
        typer.Option(
            "--highlight",
            help="Score each sentence of the kept passages: a terminal shows in color which "
            "ones matter, --json has them as 'spans' of 'text'.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document.")] = False,
    bulk: Annotated[
        Path | None,
        typer.Option(
            help="Instead of QUERY and FILE: score every row of this .jsonl file, "
            "which has a query and a document each.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The .jsonl file for the rows of --bulk with their scores. Rows that it has "
            "already are not scored again.",
            show_default=False,
        ),
    ] = None,
    **settings: Any,
) -> None:
    """Rank the passages of files by relevance to QUERY.

    A pipe gets one passage per line: score, file:line and text, with tabs between them.

    bge-rerank rerank "how do I undo a commit" notes.txt --top-n 5
    bge-rerank rerank "how do I undo a commit" docs/*.md --split paragraph
    git log --format=%s | bge-rerank rerank "performance work" - --json
    bge-rerank rerank --bulk pairs.jsonl -o scored.jsonl
    """
    _check_use(query, bool(files), bulk, output)
    # imported here: torch takes seconds, and --help does not need it
    from .. import RerankEngine

    def load() -> RerankEngine:
        return RerankEngine.shared(model, normalize=not raw, **settings)

    if bulk is not None and output is not None:
        _score_rows(load(), bulk, output)
        return
    passages = read_passages(files or (), jsonl=jsonl, split=split)
    texts = [passage.content for passage in passages]
    if told := unread_language(model, query, texts):
        typer.echo(f"note: {told}", err=True)
    engine = load()
    kept = top_n, score_threshold, retrieval_weight
    try:
        if sys.stderr.isatty():
            pairs = [(query, text) for text in texts]
            ranking = rank(engine.score_pairs(pairs, show_progress=True), *kept)
        else:
            ranking = engine.rerank(query, texts, *kept)
    except InputError as error:
        where = "QUERY" if error.index is None else passages[error.index].place
        raise InputError(f"{where}: {error}", error.index) from error
    console = Console()
    # a pipe shows no color
    is_shown = highlight and (as_json or console.is_terminal)
    spans = _highlight(engine, query, passages, ranking) if is_shown else {}
    if truncated := _truncated(ranking):
        typer.echo(f"truncated: {truncated}", err=True)
    if as_json:
        document = _document(query, passages, ranking, spans)
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(console, passages, ranking, spans)


def _check_use(query: str, has_files: bool, bulk: Path | None, output: Path | None) -> None:
    if bulk is None and not has_files:
        raise typer.BadParameter(
            "QUERY and FILE are needed, or --bulk; as FILE, - reads passages from standard input"
        )
    if bulk is None and not query.strip():
        raise typer.BadParameter("QUERY must not be empty")
    if (bulk is None) != (output is None) or (bulk is not None and has_files):
        raise typer.BadParameter("--bulk and --output belong together, without QUERY and FILE")


def _score_rows(engine: RerankEngine, source: Path, target: Path) -> None:
    from ..bulk import score_file

    scored = score_file(engine, source, target, show_progress=True)
    typer.echo(f"{scored} rows scored; {target} is complete", err=True)


def _highlight(
    highlighter: Highlighter, query: str, passages: Sequence[FilePassage], ranking: Ranking
) -> dict[int, list[Span]]:
    """The sentences of each kept passage's text, by its index."""
    texts = [passages[kept.index].text for kept in ranking]
    found = highlighter.highlight(query, texts)
    return {kept.index: spans for kept, spans in zip(ranking, found, strict=True)}


def _truncated(ranking: Ranking) -> str:
    """What the model did not read to its end."""
    count = ranking.usage.truncated_documents
    passages = [f"{count} passage{'s' * (count > 1)}"] if count else []
    return " and ".join([*passages, *(["the query"] * ranking.usage.query_truncated)])


def _document(
    query: str,
    passages: Sequence[FilePassage],
    ranking: Ranking,
    spans: Mapping[int, Sequence[Span]],
) -> dict[str, Any]:
    return {
        "query": query,
        "model": ranking.model,
        "results": [
            {"index": kept.index, "score": kept.score, **_described(passages[kept.index])}
            | ({"spans": [asdict(span) for span in spans[kept.index]]} if spans else {})
            for kept in ranking
        ],
        "total_tokens": ranking.total_tokens,
    }


def _described(passage: FilePassage) -> dict[str, Any]:
    place = passage.place
    described: dict[str, Any] = {"text": passage.text, "file": place.file, "line": place.line}
    if passage.id is not None:
        described["id"] = passage.id
    if passage.title:
        described["title"] = passage.title
    return described


def _show(
    console: Console,
    passages: Sequence[FilePassage],
    ranking: Ranking,
    spans: Mapping[int, Sequence[Span]],
) -> None:
    if not console.is_terminal:
        for kept in ranking:
            passage = passages[kept.index]
            content = " ".join(passage.content.split())
            typer.echo(f"{kept.score:.4f}\t{passage.place}\t{content}")
        return
    scores = [span.score for each in spans.values() for span in each]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    table = Table("rank", "score", "where", "passage", box=None)
    for number, kept in enumerate(ranking, start=1):
        passage = passages[kept.index]
        place = Text(str(passage.place), style="dim")
        # Text: rich would read brackets in a passage as markup
        text = Text(" ".join(passage.content.split()))
        if spans:
            text = _colored(passage, spans[kept.index], low, high)
        table.add_row(str(number), f"{kept.score:.4f}", place, text)
    console.print(table)


def _colored(passage: FilePassage, spans: Sequence[Span], low: float, high: float) -> Text:
    """A passage on one line; sentences that score high stand out.

    :param low: the lowest score among the sentences of all passages.
    :param high: the highest.
    """
    colored = Text(f"{' '.join(passage.title.split())} ".lstrip())
    for span in spans:
        share = (span.score - low) / (high - low or 1)
        style = "bold green" if share >= 0.5 else "green" if share >= 0.1 else "dim"
        # a sentence of Chinese has no space behind it
        sentence = re.sub(r"\s+", " ", passage.text[span.start : span.end])
        colored.append(sentence, style)
    return colored
