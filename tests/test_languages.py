"""Texts in a language that a model does not read."""

from __future__ import annotations

import logging
from importlib.resources import files

import pytest

from bge_rerank_integrations.cli.passages import python_reference
from bge_rerank_integrations.languages import COMMON_WORDS, unread_language

QUERY = "why does a ship float?"
TEXTS = {
    "German": "Ein Schiff schwimmt, weil es das Wasser verdrängt und nicht schwerer ist.",
    "French": "Un bateau flotte parce que son poids est celui de l'eau dans laquelle il est.",
    "Spanish": "El barco flota porque el agua que desplaza pesa como el barco.",
    "Portuguese": "O navio não afunda porque desloca o seu peso em água, como uma boia.",
    "Italian": "La nave galleggia perché il peso della nave è uguale alla spinta che riceve.",
    "Dutch": "Een schip drijft omdat het gewicht van het water niet kleiner is dan zijn gewicht.",
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_language_is_known_by_its_common_words(language: str) -> None:
    documents = ["A ship displaces water.", TEXTS[language]]
    told = f"the documents are in {language}, it seems, and tiny reads English: "
    assert str(unread_language("tiny", QUERY, documents)).startswith(told)


@pytest.mark.parametrize(
    "text", ["Почему корабль плавает?", "为什么船会浮?", "لماذا تطفو السفينة؟"]
)
def test_a_script_is_known_by_its_letters(text: str) -> None:
    told = unread_language("tiny", text, ["A ship displaces water."])
    assert told == (
        "the query is in another script, and tiny reads English: the scores may mean little"
    )
    is_chinese = "船" in text
    assert (unread_language("BAAI/bge-reranker-base", text, []) is None) == is_chinese


@pytest.mark.parametrize("model", ["BAAI/bge-reranker-v2-m3", "a/model", "folder"])
def test_nothing_is_said_of_models_that_read_it_or_are_not_known(model: str) -> None:
    assert unread_language(model, "Почему?", list(TEXTS.values())) is None


def test_english_is_never_taken_for_another_language() -> None:
    for passage in python_reference():
        assert unread_language("tiny", passage.topic, [passage.text]) is None, passage
    assert unread_language("tiny", "", []) is None
    assert unread_language("tiny", "1 + 1", ["x = 2"]) is None


def test_the_page_of_the_server_knows_the_same_words() -> None:
    page = files("bge_rerank_integrations") / "serving" / "page" / "texts.js"
    for language, words in COMMON_WORDS.items():
        assert f'  {language}: "{words}",' in page.read_text("utf-8")


def test_a_component_tells_it_once(caplog: pytest.LogCaptureFixture) -> None:
    from langchain_core.documents import Document

    from bge_rerank_integrations.langchain import BGERerank

    component = BGERerank("tiny", top_n=1)
    documents = [Document(TEXTS["German"]), Document("A ship displaces water.")]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            component.compress_documents(documents, QUERY)
    assert [each.message for each in caplog.records if "German" in each.message] == [
        "the documents are in German, it seems, and tiny reads English: the scores may mean little"
    ]
