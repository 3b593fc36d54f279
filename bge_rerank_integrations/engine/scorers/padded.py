"""Encoders on padded batches: for architectures that cannot be packed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from bge_rerank_integrations.engine.scorers.heads import Head
from bge_rerank_integrations.engine.scorers.packing import download, upload
from bge_rerank_integrations.engine.tokenization.token_cache import TokenSequence


class PaddedScorer:
    """Scores right-padded batches through the model's own forward pass.

    :param model: in eval mode on its device.
    :param passage_type: token type of the passage; types are passed on only where the model has
        more than one.
    :param head: hidden states → logits; None for a model that classifies into one label itself.
    """

    padded = True

    def __init__(self, model: PreTrainedModel, passage_type: int, head: Head | None = None) -> None:
        self._model = model
        self._passage_type = passage_type
        self._head = head
        self._padding_id = model.config.pad_token_id or 0
        # a decoder would keep states of tokens to come, which never come
        has_cache = getattr(model.config, "use_cache", None) is not None
        self._options = {"use_cache": False} if has_cache else {}
        self._has_types = getattr(model.config, "type_vocab_size", 0) > 1

    @torch.inference_mode()
    def score(self, batch: Sequence[TokenSequence]) -> npt.ArrayLike:
        """Score one batch, padded to its longest pair.

        :returns: float32 logits, `(n, 1)`; on CUDA still being computed.
        """
        shape = (len(batch), max(len(sequence) for sequence in batch))
        ids = np.full(shape, self._padding_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence)] = sequence.ids
            mask[row, : len(sequence)] = 1
            types[row, sequence.passage_start : len(sequence)] = self._passage_type
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._has_types:
            inputs["token_type_ids"] = types
        device = self._model.device
        tensors = {name: upload(torch.from_numpy(array), device) for name, array in inputs.items()}
        outputs = self._model(**tensors, **self._options)
        if self._head is None:
            return download(outputs.logits)
        hidden = outputs.last_hidden_state
        if self._head.pooling == "cls":
            return download(self._head(hidden[:, 0]))
        real = tensors["attention_mask"].unsqueeze(2)
        return download(self._head((hidden * real).float().sum(1) / real.sum(1)))
