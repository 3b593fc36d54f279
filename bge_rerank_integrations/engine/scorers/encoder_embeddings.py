"""Token ids of a batch → states of its packed tokens, for encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import embedding

from bge_rerank_integrations.engine.scorers.encoder_shape import EncoderShape
from bge_rerank_integrations.engine.scorers.linear import rows_to_fill
from bge_rerank_integrations.engine.scorers.parameters import Parameters
from bge_rerank_integrations.engine.scorers.transfer import upload
from bge_rerank_integrations.engine.tokenization.tokenized_pair import TokenizedPair


class Embeddings:
    """What a token, its type and its position add up to.

    :param parameters: the module's.
    :param passage_type: token type of the passage.
    """

    def __init__(self, parameters: Parameters, shape: EncoderShape, passage_type: int) -> None:
        sizes = {
            "word_embeddings": shape.vocab_size,
            "token_type_embeddings": shape.type_vocab_size,
            "position_embeddings": shape.max_position_embeddings,
        }
        hidden = shape.hidden_size
        self._tables = [parameters.read(f"{n}.weight", size, hidden) for n, size in sizes.items()]
        self._norm = parameters.norm("LayerNorm", hidden, shape.layer_norm_eps)
        self._device = parameters.device
        self._passage_type = passage_type
        self._padding_index = shape.padding_index

    def __call__(self, batch: Sequence[TokenizedPair]) -> torch.Tensor:
        """States `(tokens, hidden)`; on a CPU, tokens of no use follow."""
        rows = upload(torch.from_numpy(self._rows(batch)), self._device)
        words, types, positions = map(embedding, rows, self._tables)
        return self._norm(words.add_(types).add_(positions))

    def _rows(self, batch: Sequence[TokenizedPair]) -> npt.NDArray[np.int32]:
        """Ids, types and positions of all tokens, `(3, tokens)`."""
        ids = np.concatenate([pair.ids for pair in batch])
        lengths = np.array([len(pair) for pair in batch])
        passages = np.array([pair.passage_start for pair in batch])
        starts = np.cumsum(lengths) - lengths
        # a token's place within its own sequence
        places = np.arange(len(ids)) - np.repeat(starts, lengths)
        rows = np.zeros((3, len(ids) + rows_to_fill(len(ids), self._device)), dtype=np.int32)
        rows[0, : len(ids)] = ids
        rows[1, : len(ids)] = (places >= np.repeat(passages, lengths)) * self._passage_type
        rows[2, : len(ids)] = places
        if self._padding_index is not None:
            # a literal padding token in a text keeps padding's position, and is not counted
            real = ids != self._padding_index
            counted = np.cumsum(real)
            counted_before = np.repeat(counted[starts] - real[starts], lengths)
            rows[2, : len(ids)] = (counted - counted_before) * real + self._padding_index
        return rows
