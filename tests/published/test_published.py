"""The released weights against the scores that their authors print.

Runs for the models that are in the local hub cache, or for all with ``BGE_RERANK_ONLINE=1``::

    BGE_RERANK_ONLINE=1 pytest tests/published
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import try_to_load_from_cache

from bge_rerank_integrations import RerankEngine

MODELS = json.loads((Path(__file__).parent / "scores.json").read_text("utf-8"))["models"]
ONLINE = os.environ.get("BGE_RERANK_ONLINE") == "1"


@pytest.mark.enable_socket
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("published", MODELS, ids=[entry["model"] for entry in MODELS])
def test_scores_are_those_that_the_authors_print(published: dict[str, Any]) -> None:
    model = published["model"]
    if not ONLINE and not isinstance(try_to_load_from_cache(model, "config.json"), str):
        pytest.skip(f"{model} is not in the local hub cache; BGE_RERANK_ONLINE=1 downloads it")
    # the authors' precision where the hardware has it
    dtype: Any = "float16" if torch.cuda.is_available() else "float32"
    pairs = [(query, passage) for query, passage, _ in published["scores"]]
    expected = [score for _, _, score in published["scores"]]
    with RerankEngine(
        model, dtype=dtype, normalize=False, local_files_only=not ONLINE, **published["settings"]
    ) as engine:
        scores = engine.score_pairs(pairs)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=published["tolerance"])
