"""The base as a teacher: how near a query and a passage are for the bi-encoder that it is.

all-MiniLM-L6-v2 has learned from a billion pairs what belongs together. A cross-encoder with a
fresh head knows nothing of it, and the pairs of this recipe are too few to learn it again.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from bge_rerank_integrations.tuning.packed import train_packed

# The base's own training multiplied cosines by 20 before the softmax. A cosine of 0.4 becomes a
# logit of 0, a guess that later stages and the calibration move.
SCALE, MIDDLE = 20.0, 0.4
BATCH_SIZE = 64


class BiEncoder:
    """Scores pairs by the cosine of their embeddings, as logits; a ``PairScorer``."""

    def __init__(self, folder: Path) -> None:
        self._encoder = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        train_packed(self._encoder[0].auto_model)

    def score_pairs(self, pairs: Iterable[tuple[str, str]]) -> list[float]:
        """The logit of each pair; every text is encoded once, in bfloat16."""
        pairs = list(pairs)
        texts = sorted({text for pair in pairs for text in pair})
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = self._encoder.encode(
                texts, batch_size=BATCH_SIZE, normalize_embeddings=True, convert_to_tensor=True
            ).float()
        row = {text: number for number, text in enumerate(texts)}
        queries, passages = (
            embeddings[[row[text] for text in side]] for side in zip(*pairs, strict=True)
        )
        return (SCALE * ((queries * passages).sum(1) - MIDDLE)).tolist()
