"""Callers: one after the other, as many as a server can bear, or at random times."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks.capacity import Replica
from bge_rerank_integrations import OverloadedError, RemoteError, RemoteReranker
from bge_rerank_integrations.cli.passages import python_reference

_ALONE = 20


class Texts:
    """Requests about Python's own reference; hardly any two are alike."""

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)
        self._passages = python_reference()

    def request(self, pairs: int) -> tuple[str, list[str]]:
        """A query and this many documents."""
        topic = self._chance.choice(self._passages).topic
        documents = self._chance.sample(self._passages, pairs)
        return f"How does {topic} work?", [passage.content for passage in documents]


@dataclass
class Answers:
    """What became of the requests.

    :param latencies: seconds of those that were answered, in order of their answers.
    :param moments: when those answers came, in seconds after the first request was due.
    :param refused: requests that were answered with 429.
    :param late: requests that were answered with 504.
    :param sending_s: from the first request to the last.
    :param behind_s: how late each request was sent, because the callers themselves had no time.
    """

    latencies: list[float] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    refused: int = 0
    late: int = 0
    sending_s: float = 0.0
    behind_s: list[float] = field(default_factory=list)

    def per_second(self, since_s: float) -> float:
        """Answers a second from then on, until the last request was sent."""
        counted = [moment for moment in self.moments if since_s <= moment <= self.sending_s]
        return len(counted) / (self.sending_s - since_s)


@dataclass(frozen=True)
class Measured:
    """A replica, and the tokens in the pairs that it was measured with."""

    replica: Replica
    tokens_in_a_pair: float
    alone_ms: float
    pairs_per_s: float


async def measure(url: str, texts: Texts, pairs: int, pass_tokens: int, seconds: float) -> Measured:
    """Describe a replica by what its callers see: one pair alone, and as many as it can bear.

    :param pairs: in a request, on average.
    :param pass_tokens: tokens in one forward pass, at most.
    :param seconds: how long to ask as much as it can bear.
    """
    async with RemoteReranker(url, max_attempts=1) as reranker:
        alone, tokens = await _alone(reranker, texts)
        pass_pairs = max(int(pass_tokens / tokens), 1)
        # five passes' pairs always wait, so that passes are full
        callers = 5 * pass_pairs // pairs + 2
        rate = await _saturate(reranker, texts, pairs, callers, seconds)
    # seconds(1) and seconds(pass_pairs) are what was measured
    full = pass_pairs / rate
    pair_s = (full - alone) / (pass_pairs - 1) if pass_pairs > 1 else full
    replica = Replica(max(alone - pair_s, 0.0), pair_s, pass_pairs)
    return Measured(replica, round(tokens, 1), round(alone * 1e3, 1), round(rate, 1))


async def _alone(reranker: RemoteReranker, texts: Texts) -> tuple[float, float]:
    """Median seconds of a request with one pair, and tokens in a pair."""
    latencies, tokens = [], []
    for _ in range(_ALONE + 2):
        request = texts.request(1)
        start = time.perf_counter()
        tokens.append((await reranker.arerank(*request)).total_tokens)
        latencies.append(time.perf_counter() - start)
    # the first two opened the connection and warmed the server up
    return sorted(latencies[2:])[_ALONE // 2], sum(tokens) / len(tokens)


async def _saturate(
    reranker: RemoteReranker, texts: Texts, pairs: int, callers: int, seconds: float
) -> float:
    """Pairs a second when so many callers ask again at once, from the first to the last answer.

    Requests share passes, so that those of one size would end together and leave the queue empty.
    """
    chance = random.Random(0)
    begin = time.perf_counter()
    answered = 0

    async def ask_again() -> None:
        nonlocal answered
        while time.perf_counter() < begin + seconds:
            size = chance.randint(1, 2 * pairs - 1)
            await reranker.arerank(*texts.request(size))
            answered += size

    await asyncio.gather(*(ask_again() for _ in range(callers)))
    return answered / (time.perf_counter() - begin)


async def ask(
    urls: Sequence[str], rate: float, texts: Texts, pairs: int, requests: int, seed: int = 1
) -> Answers:
    """Ask at random times, each time the less busy of two servers."""
    chance = random.Random(seed)
    outstanding = [0] * len(urls)
    answers = Answers()

    async def one(number: int, due: float, request: tuple[str, list[str]]) -> None:
        try:
            await rerankers[number].arerank(*request)
            now = time.perf_counter()
            answers.latencies.append(now - due)
            answers.moments.append(now - begin)
        except OverloadedError:
            answers.refused += 1
        except RemoteError as error:
            if error.status != 504:
                raise
            answers.late += 1
        finally:
            outstanding[number] -= 1

    async with AsyncExitStack() as stack:
        rerankers = [
            await stack.enter_async_context(RemoteReranker(url, max_attempts=1)) for url in urls
        ]
        tasks = []
        begin = due = time.perf_counter()
        for _ in range(requests):
            request = texts.request(pairs)
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            answers.behind_s.append(time.perf_counter() - due)
            two = chance.sample(range(len(urls)), min(2, len(urls)))
            number = min(two, key=outstanding.__getitem__)
            outstanding[number] += 1
            tasks.append(asyncio.create_task(one(number, due, request)))
            due += chance.expovariate(rate)
        answers.sending_s = time.perf_counter() - begin
        await asyncio.gather(*tasks)
    return answers
