"""An engine whose model is a script; everything above the scorer is the real thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fakes import FakeScorer, fake_model, tokenize

from bge_rerank_integrations import EngineConfig, RerankEngine
from bge_rerank_integrations.engine.scheduling.scheduler import Tokenize

MakeEngine = Callable[..., RerankEngine]


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes engines over fake scorers; scores are the fakes' digests themselves."""
    made: list[RerankEngine] = []

    def make(
        *scorers: FakeScorer,
        tokenize: Tokenize = tokenize,
        max_batch_tokens: int = 64,
        **settings: object,
    ) -> RerankEngine:
        model = fake_model(*scorers, tokenize=tokenize, max_batch_tokens=max_batch_tokens)
        config = EngineConfig("fake", normalize=False, **settings)  # type: ignore[arg-type]
        made.append(RerankEngine.on(model, config))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
