"""``bge-rerank demo``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from processes import WITH_LIBRARIES, run
from typer.testing import CliRunner, Result

from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.cli.demo import (
    DEFAULT_QUESTION,
    Candidate,
    DemoRun,
    agreement,
    ask_langchain,
    ask_llama_index,
    conclusion,
)
from bge_rerank_integrations.cli.passages import python_reference
from bge_rerank_integrations.evaluation.first_stage import BM25Index
from bge_rerank_integrations.ranking import RankedDocument
from bge_rerank_integrations.settings import EngineConfig

MAIN = "from bge_rerank_integrations.cli import main; main()"
SAME = "LlamaIndex and LangChain: the same ranking, from one shared engine.\n"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide terminal without colours, so that lines stay whole."""
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    # lines break where the texts below do not
    monkeypatch.setenv("COLUMNS", "200")


def demo(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["demo", *arguments])


def test_both_frameworks_show_the_same_ranking_from_one_engine(xlmr: str) -> None:
    result = demo("What is a generator?", "--model", xlmr, "--candidates", "12", "--top-n", "2")
    assert result.exit_code == 0, result.output
    shown = result.stdout
    assert shown.startswith("What is a generator?\n")
    for line in ("BM25 alone: the first 2 of 12", "BM25, then BGERerank", "12 of "):
        assert f"\n{line}" in shown
    assert f"passages reranked by {xlmr} on " in shown
    assert SAME in shown


def test_the_built_in_model_finds_the_answer_that_bm25_does_not() -> None:
    result = demo()
    assert result.exit_code == 0, result.output
    before, after = result.stdout.split("BM25, then BGERerank")
    # two passages answer it; Python 3.10's reference has the first in one with other types
    answer = "not acceptable as keys are values containing lists"
    if sys.version_info < (3, 11):
        answer = "A mapping object maps hashable values"
    assert DEFAULT_QUESTION in before
    assert answer not in before
    assert answer in after
    assert SAME in result.stdout
    # the point comes last
    assert re.fullmatch(
        r"The best passage stood at \d+ and is 1 now: an LLM that reads 5 would have missed it\.",
        result.stdout.splitlines()[-1],
    )


def test_the_demo_fits_one_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = demo().stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    # the scores of both frameworks, each once, in one table
    (header,) = (line for line in lines if "LlamaIndex" in line and "BM25 rank" in line)
    assert header.split() == ["rank", "LlamaIndex", "LangChain", "BM25", "rank", "passage"]


def test_what_bm25_found_is_shown_before_the_model_is_loaded() -> None:
    program = f"import sys; sys.modules['torch'] = None; {MAIN}"
    done = run(program, "demo")
    assert done.returncode == 1
    assert done.stdout.startswith(f"{DEFAULT_QUESTION}\nBM25 alone: the first 5 of 50")


@pytest.mark.parametrize("ask", [ask_llama_index, ask_langchain])
def test_each_framework_keeps_the_best_of_the_candidates(
    ask: Callable[..., DemoRun], xlmr: str
) -> None:
    texts = ["Banana is yellow", "Lemon is yellow", "Melon is yellow"]
    found = [Candidate(number, 1.0, text) for number, text in enumerate(texts, start=7)]
    run = ask("yellow", found, xlmr, 2)
    assert {kept.index for kept in run.kept} < {7, 8, 9}
    assert len(run.kept) == 2
    assert run.kept[0].score >= run.kept[1].score
    assert run.engine_config == EngineConfig(xlmr)


def without(*packages: str) -> subprocess.CompletedProcess[str]:
    """The demo in a process in which these packages are not installed."""
    program = f"""
import sys
for name in list(sys.modules):
    if name.partition(".")[0] in {packages!r}:
        del sys.modules[name]
sys.modules.update(dict.fromkeys({packages!r}))
{MAIN}
"""
    arguments = ("demo", "What is a generator?", "--candidates", "5")
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    return run(program, *arguments, environment=environment, imported=WITH_LIBRARIES)


@pytest.mark.parametrize(
    ("package", "extra", "other"),
    [("llama_index", "llama-index", "LangChain"), ("langchain_core", "langchain", "LlamaIndex")],
)
def test_one_framework_is_enough(package: str, extra: str, other: str) -> None:
    done = without(package)
    assert done.returncode == 0, done.stderr
    assert f": {other} " in done.stdout
    assert f'pip install "bge-rerank-integrations[{extra}]"' in done.stdout
    assert "shared engine" not in done.stdout


def test_without_a_framework_the_extra_for_both_is_named() -> None:
    done = without("llama_index", "langchain_core")
    assert done.returncode == 1
    assert 'pip install "bge-rerank-integrations[all]"' in done.stderr


@pytest.mark.parametrize("question", ["", "Schnürsenkel?"])
def test_a_question_that_shares_no_word_with_the_text_is_an_error(question: str) -> None:
    result = demo(question)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no passage of Python's reference shares a word")


@pytest.mark.parametrize(("option", "value"), [("--top-n", "0"), ("--candidates", "0")])
def test_numbers_below_one_are_usage_errors(option: str, value: str) -> None:
    assert demo(option, value).exit_code == 2


def given(framework: str, *kept: int) -> DemoRun:
    ranked = tuple(RankedDocument(number, 0.5) for number in kept)
    return DemoRun(framework, ranked, 1.0, EngineConfig())


def test_a_difference_between_the_frameworks_would_be_told() -> None:
    line = agreement([given("A", 1, 2), given("B", 2, 1)], one_engine=False)
    assert line.plain == "A and B: different rankings, from separate engines."


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (1, "BM25 and the reranker agree on the best passage."),
        (2, "The best passage stood at 2 and is 1 now."),
        (3, "stood at 3 and is 1 now: an LLM that reads 2 would have missed it."),
    ],
)
def test_the_last_line_says_what_reranking_changed(best: int, said: str) -> None:
    ranks = {11: 1, 12: 2, 13: 3}
    assert said in conclusion(ranks, given("A", 10 + best), top_n=2).plain


def test_the_default_question_has_its_answer_in_this_python_s_reference() -> None:
    passages = python_reference()
    index = BM25Index([passage.content for passage in passages])
    hits = index.search(DEFAULT_QUESTION, 50)
    answers = [hit for hit in hits if "not acceptable as keys" in passages[hit.index].text]
    assert len(hits) == 50
    assert answers
