"""The last stage of the built-in reranker: passages as they stand in real chunks.

A retriever's chunk is seldom one paragraph that answers: others stand around it, of the same page
or not. So passages stand among others here, right and wrong ones alike, and a larger bi-encoder
says how near each passage is by itself. Queries have typing errors or are a few words, and a
passage in another language is among the wrong ones.

python -m training.chunked --pairs mix.jsonl --collections collections --manuals packages \
    --teacher all-mpnet-base-v2 --base bge_rerank_integrations/models/tiny --work /tmp/tiny \
    --out bge_rerank_integrations/models/tiny
"""

import argparse
import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import bm25s
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch.nn import functional

from bge_rerank_integrations.tuning.train import load_base
from training.__main__ import calibrate, export
from training.lists import first_words
from training.manuals import FOREIGN, MANUALS, as_passage, chunks, requests
from training.negatives import mine
from training.records import (
    SIMILAR,
    UNSEEN,
    Data,
    Passage,
    Question,
    as_collection,
    evaluation_queries,
    from_pairs,
    load,
)
from training.requests import KEYWORDS, SENTENCE, TOPIC, Rarity, made_up
from training.texts import Twins, normalized

# How many lists of each source.
MIX = {
    "qed-nq-train": 350,
    "scifact-train": 105,
    "trecqa-train": 40,
    "selqa-dev": 55,
    "selqa-dev-section": 40,
    "squad-train-sentence-nqg": 175,
    "squadshifts-new-wiki": 140,
    "boolq-dev": 105,
    "dolly-open-qa": 175,
    "quotesum-dev": 15,
    "nq-openbook-short": 15,
    "quac": 40,
    "medquad": 55,
    "pubmedqa": 70,
    "scitldr-tldr": 70,
    "covid-qa": 55,
    "texfaq": 85,
    "covid-faq-cdc-fda": 15,
    "qamr-wiki": 20,
    TOPIC: 40,
    KEYWORDS: 40,
    SENTENCE: 30,
    MANUALS: 980,
}
SEED = 29
# Wrong passages of a list, of BM25's first thirty; one more is any of the pool.
NEAR, NEAR_RANKS = 3, 30
FEWEST_WORDS, MOST_WORDS = 50, 130
OTHERS_SHARE, MOST_OTHERS, OTHER_WORDS = 0.55, 3, (30, 90)
TITLE_SHARE, FOREIGN_SHARE, TYPO_SHARE, FEW_WORDS_SHARE = 0.5, 0.25, 0.12, 0.12
# A wrong passage that the teacher finds as near as the answer, or nearly so, may well be one.
DOUBT = 0.02

LISTS_PER_STEP, LEARNING_RATE, WARMUP_SHARE = 6, 1e-4, 0.05
# Cosines of the teacher become logits; margins between them weigh so much beside people's labels.
TEACHER_SCALE, MARGIN_WEIGHT, POINTWISE_WEIGHT = 14.0, 0.08, 0.2


@dataclass(frozen=True)
class ChunkList:
    """A query and chunks, the answer's first.

    :param asked: the query as it was before errors were made.
    :param alone: of each chunk, the passage that the teacher judges.
    :param far: which chunks are drawn from the whole pool, or are in another language.
    """

    query: str
    asked: str
    chunks: tuple[str, ...]
    alone: tuple[str, ...]
    far: tuple[bool, ...]


class ChunkSampler:
    """Draws lists: which passages, what stands around them, and what becomes of the query."""

    def __init__(
        self, data: Data, mined: Mapping[int, Sequence[Passage]], foreign: "Foreign", seed: int
    ) -> None:
        self._data, self._mined, self._foreign = data, mined, foreign
        self._rng = random.Random(seed)
        self._rarity = Rarity([passage for pool in data.pools.values() for passage in pool])
        self._pages: dict[tuple[str, str], list[Passage]] = {}
        for name, pool in data.pools.items():
            for passage in pool:
                self._pages.setdefault((name, passage.group), []).append(passage)

    def draw(self) -> list[ChunkList]:
        """A list for every question, in random order."""
        order = list(range(len(self._data.questions)))
        self._rng.shuffle(order)
        lists = (self._list(index) for index in order)
        return [one for one in lists if len(one.chunks) > 1]

    def _list(self, index: int) -> ChunkList:
        question = self._data.questions[index]
        near, any_ = self._wrong(question, index)
        passages = [self._rng.choice(question.positives), *near, *any_]
        answers = {normalized(passage.text) for passage in question.positives}
        alone, shown = [], []
        for passage in passages:
            text = self._cut(passage, question)
            alone.append(text)
            shown.append(self._among_others(text, passage, question, answers))
        far = [False] * (1 + len(near)) + [True] * len(any_)
        if self._rng.random() < FOREIGN_SHARE:
            text = first_words(self._foreign.near(question, self._rng), self._length())
            alone, shown, far = [*alone, text], [*shown, text], [*far, True]
        query = self._as_typed(question.query)
        return ChunkList(query, question.query, tuple(shown), tuple(alone), tuple(far))

    def _wrong(self, question: Question, index: int) -> tuple[list[Passage], list[Passage]]:
        """Passages that share words with the question, and any."""
        near = list(question.judged_negatives or self._mined.get(index, [])[:NEAR_RANKS])
        chosen = self._rng.sample(near, min(NEAR, len(near)))
        if not question.pool:
            return chosen, []
        answers = {normalized(passage.text) for passage in question.positives}
        drawn = self._rng.choice(self._data.pools[question.pool])
        return chosen, [] if normalized(drawn.text) in answers else [drawn]

    def _length(self) -> int:
        return self._rng.randint(FEWEST_WORDS, MOST_WORDS)

    def _cut(self, passage: Passage, question: Question) -> str:
        title = passage.title or passage.heading
        is_told = normalized(title) == normalized(question.query)
        if title and not is_told and self._rng.random() < TITLE_SHARE:
            return first_words(f"{title}\n{passage.text}", self._length())
        return first_words(passage.text, self._length())

    def _among_others(
        self, text: str, passage: Passage, question: Question, answers: set[str]
    ) -> str:
        """The text at a random place among other paragraphs, for a share of the texts."""
        if not question.pool or self._rng.random() >= OTHERS_SHARE:
            return text
        page = self._pages.get((question.pool, passage.group), []) if passage.group else []
        parts = []
        for _ in range(self._rng.randint(1, MOST_OTHERS)):
            is_of_page = len(page) > 1 and self._rng.random() < 0.5
            other = self._rng.choice(page if is_of_page else self._data.pools[question.pool])
            if normalized(other.text) not in answers and other.text != passage.text:
                parts.append(first_words(other.text, self._rng.randint(*OTHER_WORDS)))
        parts.insert(self._rng.randint(0, len(parts)), text)
        return "\n".join(parts)

    def _as_typed(self, query: str) -> str:
        draw = self._rng.random()
        if draw < TYPO_SHARE:
            return with_typing_error(query, self._rng)
        if draw < TYPO_SHARE + FEW_WORDS_SHARE:
            return " ".join(self._rarity.rarest(query, self._rng.randint(1, 3))) or query
        return query


class Foreign:
    """Passages in other languages, found by the words of a query."""

    def __init__(self, texts: Sequence[str], queries: Iterable[str]) -> None:
        self._texts = texts
        asked = sorted(set(queries))
        corpus, wanted = (
            bm25s.tokenize(list(given), stopwords="en", show_progress=False)
            for given in (texts, asked)
        )
        index = bm25s.BM25()
        index.index(corpus, show_progress=False)
        found, _ = index.retrieve(wanted, k=5, show_progress=False)
        self._found = dict(zip(asked, found.tolist(), strict=True))

    def near(self, question: Question, rng: random.Random) -> str:
        """One of the five passages that share most with the question's words."""
        return self._texts[rng.choice(self._found[question.query])]


def with_typing_error(query: str, rng: random.Random) -> str:
    """The query with two letters of a longer word swapped, or one left out or typed twice."""
    words = query.split(" ")
    longer = [number for number, word in enumerate(words) if len(word) >= 5]
    if not longer:
        return query
    number = rng.choice(longer)
    word = words[number]
    at = rng.randint(1, len(word) - 2)
    words[number] = rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
    )
    return " ".join(words)


def measuring_queries(pairs: Path, collections: Path, reserved: Data) -> list[str]:
    """The queries of every set that measures, calibrates or is compared with."""
    manuals = (collections / "manuals-dev" / "queries.jsonl").read_text("utf-8").splitlines()
    return [
        *evaluation_queries(collections),
        *(json.loads(line)["text"] for line in manuals),
        *(question.query for question in from_pairs(pairs) if question.source in UNSEEN),
        *(question.query for question in reserved.questions),
    ]


def draw_lists(pairs: Path, collections: Path, manuals: Path) -> list[ChunkList]:
    """Lists of all sources, as many of each as the mix says."""
    rng = random.Random(SEED)
    training, reserved = load(pairs, collections)
    of_manuals = requests(manuals, SEED)
    twins = Twins(measuring_queries(pairs, collections, reserved))
    by_source: dict[str, list[Question]] = {}
    for question in [*training.questions, *made_up(training, SEED), *of_manuals.questions]:
        if twins.closest(question.query) < SIMILAR:
            by_source.setdefault(question.source, []).append(question)
    questions = [
        question
        for source, count in MIX.items()
        for question in rng.sample(by_source[source], min(count, len(by_source[source])))
    ]
    data = Data(questions, training.pools | of_manuals.pools)
    texts = [as_passage(chunk).text for chunk in chunks(manuals, FOREIGN)]
    german = (collections / "xquad-de" / "corpus.jsonl").read_text("utf-8").splitlines()
    texts += [json.loads(line)["text"] for line in german]
    foreign = Foreign(texts, (question.query for question in questions))
    return ChunkSampler(data, mine(data), foreign, SEED).draw()


def judge(lists: Sequence[ChunkList], teacher: Path) -> list[tuple[ChunkList, list[float]]]:
    """The lists with the teacher's cosines of query and passage alone; doubtful ones are left out.

    What is far has a cosine of 0.
    """
    encoder = SentenceTransformer(
        str(teacher), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.bfloat16}
    )
    encoder.max_seq_length = 160
    asked = {one.asked for one in lists}
    near = {
        text for one in lists for text, is_far in zip(one.alone, one.far, strict=True) if not is_far
    }
    texts = sorted(asked | near)
    embeddings = encoder.encode(
        texts, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=True
    ).float()
    of_text = dict(zip(texts, embeddings, strict=True))
    judged = []
    for one in lists:
        query = of_text[one.asked]
        known = [
            0.0 if is_far else float(query @ of_text[text])
            for text, is_far in zip(one.alone, one.far, strict=True)
        ]
        kept = [n for n, cosine in enumerate(known) if n == 0 or cosine < known[0] - DOUBT]
        if len(kept) > 1:
            chunks, alone, far = (
                tuple(values[n] for n in kept) for values in (one.chunks, one.alone, one.far)
            )
            part = ChunkList(one.query, one.asked, chunks, alone, far)
            judged.append((part, [known[n] for n in kept]))
    return judged


def read_judged(file: Path) -> list[tuple[ChunkList, list[float]]]:
    """The lists of a file that `main` has written."""
    judged = []
    for line in file.read_text("utf-8").splitlines():
        row, known = json.loads(line)
        of_chunks = (tuple(row[name]) for name in ("chunks", "alone", "far"))
        judged.append((ChunkList(row["query"], row["asked"], *of_chunks), known))
    return judged


def loss(logits: torch.Tensor, cosines: torch.Tensor) -> torch.Tensor:
    """Of one list `(chunks,)`, the answer's logit first."""
    margins = (logits[0] - logits[1:]) - TEACHER_SCALE * (cosines[0] - cosines[1:])
    labels = torch.zeros_like(logits)
    labels[0] = 1.0
    return (
        MARGIN_WEIGHT * margins.square().mean()
        - logits.log_softmax(0)[0]
        + POINTWISE_WEIGHT * functional.binary_cross_entropy_with_logits(logits, labels)
    )


def train(model: CrossEncoder, judged: Sequence[tuple[ChunkList, list[float]]]) -> int:
    """Train on every list once.

    :returns: how many steps were made.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, LEARNING_RATE, weight_decay=0.0)
    steps = len(judged) // LISTS_PER_STEP
    warmup = max(1, round(WARMUP_SHARE * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup))
    )
    model.train()
    started = time.monotonic()
    for step in range(steps):
        batch = judged[step * LISTS_PER_STEP : (step + 1) * LISTS_PER_STEP]
        pairs = [(one.query, chunk) for one, _ in batch for chunk in one.chunks]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(model.preprocess(pairs))["scores"].view(-1).float()
        parts = logits.split([len(cosines) for _, cosines in batch])
        value = torch.stack(
            [
                loss(part, torch.tensor(cosines))
                for part, (_, cosines) in zip(parts, batch, strict=True)
            ]
        ).mean()
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            seconds = time.monotonic() - started
            print(f"{step} of {steps}: loss {value.item():.3f}, {seconds:.0f} s", flush=True)
    return steps


def main() -> None:
    """Read the arguments and run every step; lists and cosines are kept in the folder of work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines of training pairs")
    parser.add_argument("--collections", type=Path, required=True, help="folder of collections")
    parser.add_argument("--manuals", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of all-mpnet-base-v2")
    parser.add_argument("--base", type=Path, required=True, help="folder of the model before")
    parser.add_argument("--work", type=Path, required=True, help="folder of lists and checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    kept = arguments.work / "judged.jsonl"
    if not kept.exists():
        lists = draw_lists(arguments.pairs, arguments.collections, arguments.manuals)
        print(f"{len(lists)} lists, {sum(len(one.chunks) for one in lists)} pairs", flush=True)
        arguments.work.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps([asdict(one), known]) for one, known in judge(lists, arguments.teacher)]
        kept.write_text("\n".join(rows), "utf-8")
    judged = [
        (
            ChunkList(**{name: tuple(v) if isinstance(v, list) else v for name, v in row.items()}),
            known,
        )
        for row, known in map(json.loads, kept.read_text("utf-8").splitlines())
    ]
    model = load_base(arguments.base, max_length=512)
    steps = train(model, judged)
    print(f"{len(judged)} lists, {steps} steps", flush=True)
    trained = arguments.work / "trained"
    model.save_pretrained(str(trained), create_model_card=False)
    _, reserved = load(arguments.pairs, arguments.collections)
    scale, shift = calibrate(trained, as_collection("reserved", reserved))
    print(f"calibration: scale {scale:.3f}, shift {shift:.3f}")
    export(trained, arguments.base / "tokenizer.json", arguments.out, scale, shift)


if __name__ == "__main__":
    main()
