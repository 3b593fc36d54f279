"""Packed inputs and a padding-free forward pass of BERT that can be trained on a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertForSequenceClassification

ATTENTION_GROUP = 8
# oneDNN compiles a product for every shape, and keeps it: filling rows up leaves few shapes, and
# halves the time of a step.
TOKEN_MULTIPLE, GROUP_MULTIPLE = 256, 32
CLS, SEP = "[CLS]", "[SEP]"


@dataclass(frozen=True)
class Packed:
    """Sequences one after the other, without padding.

    `ids`, `types`, `positions`: `(total_tokens,)` int64; `lengths`: tokens of each sequence.
    """

    ids: torch.Tensor
    types: torch.Tensor
    positions: torch.Tensor
    lengths: list[int]


class PairEncoder:
    """`[CLS] query [SEP] passage [SEP]`: the query keeps at most 3/4, the passage the rest."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        # A tokenizer file can carry padding and truncation of its own.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        self._cls, self._sep = vocabulary[CLS], vocabulary[SEP]

    def encode(
        self, query: str, texts: Sequence[str], max_tokens: int
    ) -> list[tuple[list[int], int]]:
        """Token ids of each pair, with the number of tokens of the first segment."""
        encoded = self._tokenizer.encode_batch([query, *texts], add_special_tokens=False)
        head = [self._cls, *encoded[0].ids[: max_tokens * 3 // 4], self._sep]
        room = max_tokens - len(head) - 1
        return [([*head, *text.ids[:room], self._sep], len(head)) for text in encoded[1:]]


def pack(pairs: Sequence[tuple[list[int], int]]) -> Packed:
    """Concatenate encoded pairs."""
    lengths = [len(ids) for ids, _ in pairs]
    return Packed(
        torch.tensor([token for ids, _ in pairs for token in ids]),
        torch.tensor([int(i >= head) for ids, head in pairs for i in range(len(ids))]),
        torch.cat([torch.arange(length) for length in lengths]),
        lengths,
    )


def forward(
    model: BertForSequenceClassification, batch: Packed, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    """Logits of the sequences, `(sequences,)` float32.

    The same mathematics as the model's own `forward` without dropout. Weights stay float32 and are
    cast here, so gradients arrive in float32.
    """
    embeddings, width = model.bert.embeddings, model.config.hidden_size
    hidden = (
        embeddings.word_embeddings(batch.ids)
        + embeddings.position_embeddings(batch.positions)
        + embeddings.token_type_embeddings(batch.types)
    )
    hidden = functional.pad(hidden, (0, 0, 0, -len(hidden) % TOKEN_MULTIPLE))
    norm = embeddings.LayerNorm
    hidden = functional.layer_norm(hidden, (width,), norm.weight, norm.bias, norm.eps).to(dtype)
    layers: Any = model.bert.encoder.layer
    for layer in layers:
        query, key, value = (
            _linear(part, hidden)
            for part in (
                layer.attention.self.query,
                layer.attention.self.key,
                layer.attention.self.value,
            )
        )
        mixed = _attention(query, key, value, batch.lengths, model.config.num_attention_heads)
        output = layer.attention.output
        hidden = _norm(output.LayerNorm, _linear(output.dense, mixed) + hidden)
        inner = functional.gelu(_linear(layer.intermediate.dense, hidden))
        hidden = _norm(layer.output.LayerNorm, _linear(layer.output.dense, inner) + hidden)
    starts = torch.tensor([0, *batch.lengths[:-1]]).cumsum(0)
    pooler: Any = model.bert.pooler
    pooled = torch.tanh(pooler.dense(hidden[starts].float()))
    logits: torch.Tensor = model.classifier(pooled)
    return logits[:, 0]


def _linear(module: torch.nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    return functional.linear(hidden, module.weight.to(hidden.dtype), module.bias.to(hidden.dtype))


def _norm(module: torch.nn.LayerNorm, hidden: torch.Tensor) -> torch.Tensor:
    weight, bias = module.weight.to(hidden.dtype), module.bias.to(hidden.dtype)
    return functional.layer_norm(hidden, hidden.shape[-1:], weight, bias, module.eps)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: Sequence[int],
    heads: int,
) -> torch.Tensor:
    """Self-attention within each sequence, `(total_tokens, width)`.

    Plain products instead of `scaled_dot_product_attention`: its backward pass on the CPU took
    40 % of a training step in bfloat16. Sequences of like length share a padded group.
    """
    scale = (query.shape[-1] // heads) ** -0.5
    spare = len(query) - sum(lengths)
    parts = [torch.split(tensor, [*lengths, spare]) for tensor in (query * scale, key, value)]
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    mixed: list[torch.Tensor] = [query] * len(lengths)
    for first in range(0, len(by_length), ATTENTION_GROUP):
        group = by_length[first : first + ATTENTION_GROUP]
        q, k, v = (_heads(_padded([part[i] for i in group]), heads) for part in parts)
        valid = torch.arange(k.shape[2]) < torch.tensor([[lengths[i]] for i in group])
        bias = torch.zeros(valid.shape, dtype=q.dtype).masked_fill(~valid, -1e4)
        weights = (q @ k.transpose(-1, -2) + bias[:, None, None, :]).softmax(-1)
        rows = (weights @ v).transpose(1, 2).flatten(2)
        for row, i in zip(rows, group, strict=True):
            mixed[i] = row[: lengths[i]]
    return torch.cat([*mixed, torch.zeros_like(query[:spare])])


def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """`(tokens, width)` each → `(sequences, most tokens, filled up, width)`."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return functional.pad(padded, (0, 0, 0, -padded.shape[1] % GROUP_MULTIPLE))


def _heads(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """`(sequences, tokens, width)` → `(sequences, heads, tokens, width / heads)`."""
    return rows.view(*rows.shape[:2], heads, -1).transpose(1, 2)
