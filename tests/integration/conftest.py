"""Fixtures of the integration tests."""

from __future__ import annotations

import pytest
from fake_reranker import FakeReranker


@pytest.fixture
def reranker() -> FakeReranker:
    return FakeReranker()
