"""``bge-rerank demo``."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from bge_rerank_integrations import MissingExtraError
from bge_rerank_integrations.cli.app import app
from bge_rerank_integrations.cli.demo import two_stage
from bge_rerank_integrations.cli.demo.command import DEFAULT_QUESTION
from bge_rerank_integrations.cli.demo.tables import closing_line
from bge_rerank_integrations.cli.demo.two_stage import DemoRun, FirstStage, installed_frameworks
from bge_rerank_integrations.cli.passages import ReferencePassage, python_reference
from bge_rerank_integrations.first_stage import BM25Index
from bge_rerank_integrations.ranking import RankedDocument
from bge_rerank_integrations.settings import EngineConfig

SAME = "LlamaIndex and LangChain: the same ranking, from one shared engine."


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


def without(monkeypatch: pytest.MonkeyPatch, **extras: str) -> None:
    """Make the modules named look as if the extra they need were not installed."""

    def find(name: str) -> ModuleType:
        module = name.rpartition(".")[2]
        if module in extras:
            raise MissingExtraError(extras[module])
        return import_module(name)

    monkeypatch.setattr(two_stage, "import_module", find)


def test_both_frameworks_show_the_same_ranking_from_one_engine(xlmr: str) -> None:
    result = demo("What is a generator?", "--model", xlmr, "--candidates", "12", "--top-n", "2")
    assert result.exit_code == 0, result.output
    shown = result.stdout
    assert shown.startswith("What is a generator?\n")
    for title in ("BM25 alone", "LlamaIndex: BGERerank", "LangChain: BGERerank", "Time"):
        assert f"\n{title}" in shown
    assert "12 pairs," in shown
    assert f"{xlmr} on " in shown
    assert shown.endswith(SAME + "\n")


def test_the_built_in_model_finds_the_answer_that_bm25_does_not() -> None:
    result = demo()
    assert result.exit_code == 0, result.output
    before, after, _ = result.stdout.split("BGERerank", maxsplit=2)
    # two passages answer it; Python 3.10's reference has the first in one with other types
    answer = "not acceptable as keys are values containing lists"
    if sys.version_info < (3, 11):
        answer = "A mapping object maps hashable values"
    assert DEFAULT_QUESTION in before
    assert answer not in before
    assert answer in after
    assert result.stdout.endswith(SAME + "\n")


def test_each_framework_keeps_the_best_of_what_the_first_stage_found(xlmr: str) -> None:
    passages = [
        ReferencePassage("Fruit", f"{word} is yellow") for word in ("Banana", "Lemon", "Melon")
    ]
    index = BM25Index(
        [passage.content for passage in [*passages, ReferencePassage("Sky", "It is blue")]]
    )
    for framework in installed_frameworks()[0]:
        run = framework.ask("yellow", FirstStage(passages, index, 3), xlmr, 2)
        assert run.found == (0, 1, 2)
        assert len(run.kept) == 2
        assert run.kept[0].score >= run.kept[1].score
        assert run.engine_config == EngineConfig(xlmr)


@pytest.mark.parametrize(
    ("module", "extra", "other"),
    [("ask_llama_index", "llama-index", "LangChain"), ("ask_langchain", "langchain", "LlamaIndex")],
)
def test_one_framework_is_enough(
    xlmr: str, monkeypatch: pytest.MonkeyPatch, module: str, extra: str, other: str
) -> None:
    without(monkeypatch, **{module: extra})
    result = demo("What is a generator?", "--model", xlmr, "--candidates", "5")
    assert result.exit_code == 0, result.output
    assert f"\n{other}: BGERerank" in result.stdout
    assert f'pip install "bge-rerank-integrations[{extra}]"' in result.stdout
    assert "shared engine" not in result.stdout


def test_without_a_framework_the_extra_for_both_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, ask_llama_index="llama-index", ask_langchain="langchain")
    result = demo()
    assert (result.exit_code, result.stdout) == (1, "")
    assert 'pip install "bge-rerank-integrations[all]"' in result.stderr


@pytest.mark.parametrize("question", ["", "Schnürsenkel?"])
def test_a_question_that_shares_no_word_with_the_text_is_an_error(question: str) -> None:
    result = demo(question)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no passage of Python's reference shares a word")


@pytest.mark.parametrize(("option", "value"), [("--top-n", "0"), ("--candidates", "0")])
def test_numbers_below_one_are_usage_errors(option: str, value: str) -> None:
    assert demo(option, value).exit_code == 2


def test_a_difference_between_the_frameworks_would_be_told() -> None:
    def run(framework: str, *kept: int) -> DemoRun:
        ranked = tuple(RankedDocument(number, 0.5) for number in kept)
        return DemoRun(framework, "BGERerank", kept, ranked, 1.0, 1.0, EngineConfig())

    line = closing_line([run("A", 1, 2), run("B", 2, 1)], one_engine=False)
    assert line.plain == "A and B: different rankings, from separate engines."


def test_the_default_question_has_its_answer_in_this_python_s_reference() -> None:
    passages = python_reference()
    index = BM25Index([passage.content for passage in passages])
    hits = index.search(DEFAULT_QUESTION, 50)
    answers = [hit for hit in hits if "not acceptable as keys" in passages[hit.index].text]
    assert len(hits) == 50
    assert answers
