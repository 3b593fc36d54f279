"""Decoders without padding: one layer after the other over packed sequences, up to the last head.

A head is one row: the relevant answer's logit, a layer's own, or a classifier's. Nothing is
computed over the vocabulary, and nothing above the deepest layer that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, PreTrainedModel

from ..tokenization.pairs import TokenIds, TokenSequence
from .attention import Packing, packed_attention, positions_of, upload
from .heads import download, mean_pool
from .linear import has_kernels, n_padding_rows

PACKED_ATTENTION = "bge_rerank_packed"


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: object,
    *,
    scaling: float,
    packing: Packing,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface over a packed batch, `(1, heads, tokens, head_dim)`."""
    q, k, v = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))
    attended = packed_attention(q, k, v, packing, packing, scale=scaling, causal=module.is_causal)
    return attended.unsqueeze(0), None


AttentionInterface.register(PACKED_ATTENTION, _attend)


@dataclass(frozen=True, slots=True)
class Compression:
    """Token compression: before which layers, and how many tokens become one."""

    layers: frozenset[int]
    ratio: int


class DecoderScorer:
    """Scores packed batches with the layers of a transformers decoder.

    :param model: the decoder's body, loaded with ``PACKED_ATTENTION``, in eval mode on its device.
    :param heads: for each number of layers to score after, the head's row `(hidden,)`.
    :param compression: for lightweight models.
    :param activation: applied to logits, where the model's recipe has one.
    :param pooling: whether heads read each sequence's last token or the average of all.
    :param padding_id: a token that is not read as a sequence's last one.
    """

    padded = False

    def __init__(
        self,
        model: PreTrainedModel,
        heads: Mapping[int, torch.Tensor],
        *,
        compression: Compression | None = None,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        pooling: Literal["last", "mean"] = "last",
        padding_id: int | None = None,
    ) -> None:
        body: Any = model
        self._model = body
        if has_kernels(body.norm.weight):
            from .kernels import fuse_decoder

            fuse_decoder(model)
        self._heads = {layers: heads[layers] for layers in sorted(heads)}
        self._deepest = max(heads)
        self._compression = compression
        self._activation = activation
        self._pooling = pooling
        self._padding_id = padding_id
        self._multiplier: float = getattr(model, "embedding_multiplier", 1.0)

    @torch.inference_mode()
    def score(self, batch: Sequence[TokenSequence]) -> npt.ArrayLike:
        """Score one packed batch.

        :returns: float32 logits, `(n, heads)`, the deepest head last; on CUDA still being computed.
        """
        ids = torch.from_numpy(np.concatenate([sequence.ids for sequence in batch]))
        rows = self._model.embed_tokens(upload(ids, self._model.device))
        spans = [
            Span(len(sequence), sequence.passage_start, sequence.passage_end) for sequence in batch
        ]
        hidden, packing, rotation = self._lay_out(rows * self._multiplier, spans)
        logits = []
        for passed, layer in enumerate([*self._model.layers[: self._deepest], None]):
            if passed in self._heads:
                if self._pooling == "mean":
                    states = mean_pool(self._model.norm(hidden[0]), packing)[: len(batch)]
                else:
                    states = self._last_states(hidden[0], spans, batch)
                logits.append(self._logits(states, self._heads[passed]))
            if layer is None:
                break
            if self._compression and passed and passed in self._compression.layers:
                rows, spans = compress(hidden[0], spans, self._compression.ratio)
                hidden, packing, rotation = self._lay_out(rows, spans)
            hidden = layer(
                hidden, attention_mask=None, position_embeddings=rotation, packing=packing
            )
        return download(torch.stack(logits, dim=1))

    def _lay_out(
        self, rows: torch.Tensor, spans: Sequence[Span]
    ) -> tuple[torch.Tensor, Packing, tuple[torch.Tensor, torch.Tensor]]:
        """What a layer takes: states, where the sequences lie, and the rotary embeddings.

        :param rows: states of the packed sequences, `(tokens, hidden)`.
        :returns: states `(1, tokens, hidden)`, on a CPU with padding rows behind; the packing;
            cosines and sines of positions that restart in each sequence.
        """
        lengths = [span.length for span in spans]
        n_padding = n_padding_rows(len(rows), rows.device)
        hidden = pad(rows, (0, 0, 0, n_padding)).unsqueeze(0)
        positions = upload(torch.from_numpy(positions_of([*lengths, n_padding])), rows.device)
        rotation = self._model.rotary_emb(hidden, position_ids=positions.unsqueeze(0))
        return hidden, Packing.from_lengths(lengths, rows.device), rotation

    def _last_states(
        self, hidden: torch.Tensor, spans: Sequence[Span], batch: Sequence[TokenSequence]
    ) -> torch.Tensor:
        """Normalized states of the sequences' last tokens, `(n, hidden)`."""
        ends = np.cumsum([span.length for span in spans]) - 1
        if self._padding_id is not None:
            ends -= [n_padding_behind(sequence.ids, self._padding_id) for sequence in batch]
        last: torch.Tensor = self._model.norm(hidden[upload(torch.from_numpy(ends), hidden.device)])
        return last

    def _logits(self, states: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """Float32 logits `(n,)` of states `(n, hidden)`."""
        logits = states.float() @ row.float()
        return logits if self._activation is None else self._activation(logits)


def n_padding_behind(ids: TokenIds, padding_id: int) -> int:
    """How many padding tokens a text ends with, counted as transformers' classifiers do.

    They read the rightmost token that is not padding, so that a padding token of the text itself,
    as where it is the end-of-text token too, is skipped; of padding alone they read the first.
    """
    real = np.flatnonzero(ids != padding_id)
    return len(ids) - 1 - int(real[-1] if len(real) else 0)


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence: its length, and where the passage lies in it."""

    length: int
    start: int
    end: int

    def compressed(self, ratio: int) -> Span:
        """The sequence after groups of ``ratio`` passage tokens became one."""
        groups = -(-(self.end - self.start) // ratio)
        tail = self.length - self.end
        return Span(self.start + groups + tail, self.start, self.start + groups)


def compress(
    hidden: torch.Tensor, spans: Sequence[Span], ratio: int
) -> tuple[torch.Tensor, list[Span]]:
    """Replace each passage's states by means over groups of ``ratio`` neighbors.

    Token compression of bge-reranker-v2.5-gemma2-lightweight. Recipe: FlagEmbedding,
    `inference/reranker/decoder_only/models/gemma_model.py`.

    :param hidden: states of the packed sequences, `(tokens, hidden)`; rows behind them are dropped.
    :param spans: the sequences.
    :param ratio: neighbors in a group; a passage's last group may be smaller.
    :returns: states `(fewer tokens, hidden)`, and the sequences as they are now.
    """
    targets: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    shorter: list[Span] = []
    offset = 0
    for span in spans:
        after = span.compressed(ratio)
        passage = span.start + np.arange(span.end - span.start) // ratio
        tail = np.arange(after.end, after.length)
        targets.append(offset + np.concatenate([np.arange(span.start), passage, tail]))
        shorter.append(after)
        offset += after.length
    target_rows = np.concatenate(targets)
    # counted on the host: torch.bincount waits for the device
    counts = np.bincount(target_rows, minlength=offset)
    target = upload(torch.from_numpy(target_rows), hidden.device)
    members = upload(torch.from_numpy(counts), hidden.device).unsqueeze(1)
    # summed in float32: half precision would lose what distinguishes the members of a group
    sums = hidden.new_zeros((offset, hidden.shape[1]), dtype=torch.float32)
    sums.index_add_(0, target, hidden[: len(target)].float())
    return (sums / members).to(hidden.dtype), shorter
