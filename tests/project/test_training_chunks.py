"""The last stage of the built-in model: chunks of manuals, lists like real chunks, and its loss."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

pytest.importorskip("Stemmer", reason="PyStemmer comes with the extra 'eval'")
pytest.importorskip("training", reason="the recipe is in the repository only")
pytest.importorskip("datasets", reason="it comes with the extra 'tune'")

from training.chunked import (
    TEACHER_SCALE,
    ChunkSampler,
    Foreign,
    loss,
    with_typing_error,
)
from training.manuals import MANUALS, chunks, requests
from training.negatives import mine
from training.records import Passage, Question, with_pools
from training.texts import normalized

PAGE = """<html><head><title>Mail - Manual 1.0</title></head><body>
<nav><li>Quick search</li></nav><div><p>Quick search</p></div>
<h1>Sending mail</h1>
<p>{many}</p>
<h2>Delivery options</h2>
<dl><dt>--retry</dt><dd>How often a delivery is tried again, {few}.</dd></dl>
<table><tr><td>limit</td><td>10</td></tr></table>
<pre>retry = 3
delay = 5m</pre>
</body></html>"""


def words(prefix: str, count: int) -> str:
    return " ".join(f"{prefix}{number}" for number in range(count))


@pytest.fixture
def manuals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mail-doc" / "html"
    folder.mkdir(parents=True)
    page = PAGE.format(many=words("sending", 70), few=words("retry", 30))
    (folder / "sending.html").write_text(page, "utf-8")
    (folder / "genindex.html").write_text(page, "utf-8")
    monkeypatch.setattr("training.manuals.PACKAGES", {"mail-doc": "html"})
    return tmp_path


def test_a_heading_begins_a_chunk_where_the_one_before_has_enough_words(manuals: Path) -> None:
    first, second = chunks(manuals, {"mail-doc": "html"})
    assert (first.title, first.headings) == ("Mail", ("Sending mail",))
    assert first.text.startswith("Sending mail\nsending0")
    assert (second.headings, second.options) == (("Sending mail", "Delivery options"), ("--retry",))
    assert "limit | 10" in second.text
    assert second.text.endswith("retry = 3\ndelay = 5m")
    assert "search" not in first.text + second.text


def test_what_is_asked_with_is_no_line_of_the_answer(manuals: Path) -> None:
    for seed in range(20):
        data = requests(manuals, seed)
        assert [passage.title for passage in data.pools[MANUALS]] == ["Mail", "Mail"]
        for question in data.questions:
            lines = question.positives[0].text.split("\n")
            assert normalized(question.query) not in map(normalized, lines)


def test_lists_stand_among_other_paragraphs_and_never_among_answers() -> None:
    questions = [
        Question(f"what is thing{n}", (Passage(f"thing{n} is {words(f'part{n}x', 12)}"),), "s", "s")
        for n in range(60)
    ]
    data = with_pools(questions)
    texts = ["ding3 ist blau", "what is ding4", "thing5 auf Deutsch", "ding6", "ding7"]
    foreign = Foreign(texts, (question.query for question in questions))
    lists = ChunkSampler(data, mine(data), foreign, seed=1).draw()
    assert len(lists) == len(questions)
    for one in lists:
        answer = one.asked.split()[-1]
        assert one.alone[0].startswith(f"{answer} is")
        assert answer in one.chunks[0].split()
        assert all(alone in chunk for alone, chunk in zip(one.alone, one.chunks, strict=True))
        wrong = one.chunks[1:]
        assert all(f"{answer} is" not in chunk for chunk in wrong)
        assert not one.far[0]
    mixed = [
        alone != chunk for one in lists for alone, chunk in zip(one.alone, one.chunks, strict=True)
    ]
    assert 0.4 < sum(mixed) / len(mixed) < 0.65
    # the answer of a mixed chunk comes first, last and in between
    places = {
        one.chunks[0].startswith(one.alone[0]) for one in lists if one.alone[0] != one.chunks[0]
    }
    assert places == {True, False}
    in_german = [one for one in lists if set(one.alone) & set(texts)]
    assert 5 <= len(in_german) <= 25
    assert all(one.far[-1] and one.alone[-1] in texts for one in in_german)
    typed = [one for one in lists if one.query != one.asked]
    assert 5 <= len(typed) <= 30


def test_a_typing_error_changes_one_longer_word() -> None:
    rng = random.Random(0)
    for _ in range(200):
        before = ["how", "are", "deliveries", "retried", "by", "it"]
        after = with_typing_error(" ".join(before), rng).split(" ")
        changed = [n for n, word in enumerate(before) if after[n] != word]
        assert set(changed) <= {2, 3}
        assert len(changed) <= 1
    assert with_typing_error("a bee", rng) == "a bee"


def test_the_loss_is_least_where_margins_are_the_teachers() -> None:
    cosines = torch.tensor([0.7, 0.3, 0.0])
    taught = TEACHER_SCALE * (cosines - cosines[0]) + 4.0
    best = loss(taught, cosines)
    closer = loss(torch.tensor([4.0, 3.0, 2.0]), cosines)
    swapped = loss(taught[[1, 0, 2]], cosines)
    assert best < closer < swapped
    # of margins alone a shift says nothing; the pointwise part wants the answer above 0
    assert loss(taught, cosines) < loss(taught - 8.0, cosines)
