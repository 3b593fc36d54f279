"""Encoders' scorers: a body pools each sequence's states, a head makes the logits.

Without padding, every sequence's tokens lie one behind the other, so linear layers see real tokens
only. A body that pools first tokens computes its last layer for those rows alone. Both are exact; a
padded pass, for architectures whose layers are not known here, gives the same logits to float
rounding. A head computes in float32 always: a bfloat16 logit of 9 would be a multiple of 1/16, and
ties.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.nn.functional import pad

from ...errors import UnsupportedModelError
from ..tokenization.pairs import TokenSequence
from .attention import Packing, positions_of, upload
from .linear import n_padding_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: what may follow a linear layer, by the class's name; as with its default arguments
ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Identity": lambda states: states,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "GELU": functional.gelu,
    "ReLU": functional.relu,
    "SiLU": functional.silu,
    "Mish": functional.mish,
    "ELU": functional.elu,
    "LeakyReLU": functional.leaky_relu,
    "Softplus": functional.softplus,
}


def activation_name(path: object, allowed: Mapping[str, object], file: str) -> str:
    """The class's name, if it is one of torch's that is known here.

    :param path: as saved, like ``torch.nn.modules.activation.GELU``.
    :param allowed: by name.
    :param file: where it stands, for the message.
    :raises UnsupportedModelError: for any other.
    """
    module, _, name = str(path).rpartition(".")
    if not f"{module}.".startswith("torch.nn.") or name not in allowed:
        raise UnsupportedModelError(
            f"{file} names the activation {path!r:.80}; known are torch.nn's {', '.join(allowed)}"
        )
    return name


Pooling = Literal["cls", "mean"]
States = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class HeadModule:
    """A module behind a pooling.

    :param name: its class and sizes.
    :param load: a device → the module there, a function of float32 states; raises
        ``ModelLoadError`` if its weights are missing, or of another shape than its config's.
    """

    name: str
    load: Callable[[torch.device], States]


@dataclass(frozen=True, slots=True)
class Head:
    """What follows an encoder's last layer.

    :param pooling: "cls" reads each sequence's first token, "mean" the average of all its tokens.
    :param modules: applied one after the other to pooled states, `(n, hidden)` → logits `(n, 1)`.
    """

    pooling: Pooling
    modules: tuple[States, ...]

    def __call__(self, pooled: torch.Tensor) -> torch.Tensor:
        """Float32 logits `(n, 1)` of pooled states `(n, hidden)` in any precision."""
        states = pooled.float()
        for module in self.modules:
            states = module(states)
        return states


def first_tokens(packing: Packing, count: int = 1) -> tuple[torch.Tensor, Packing]:
    """Row numbers of each sequence's first ``count`` tokens, int64, and their packing.

    A shorter sequence gives all of its tokens. On a CPU, padding rows follow: they are copies of
    the batch's first row.
    """
    device = packing.starts.device
    lengths = [min(length, count) for length in packing.lengths]
    starts = np.cumsum(packing.lengths) - packing.lengths
    rows = np.repeat(starts, lengths) + positions_of(lengths)
    padded = np.pad(rows, (0, n_padding_rows(len(rows), device)))
    return upload(torch.from_numpy(padded), device), Packing.from_lengths(lengths, device)


def mean_pool(hidden: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The average of each sequence's tokens, summed in float32.

    :param hidden: states of the packed sequences, `(tokens, hidden)`; rows behind them are dropped.
    :returns: `(n, hidden)` float32; on a CPU, padding rows follow.
    """
    rows = hidden[: sum(packing.lengths)].float()
    # unsafe: nothing is checked on the device, which would be waited for
    means = torch.segment_reduce(rows, "mean", offsets=packing.starts.long(), unsafe=True)
    return pad(means, (0, 0, 0, n_padding_rows(len(means), means.device)))


def download(logits: torch.Tensor) -> npt.ArrayLike:
    """Float32 logits as an array of the host, which on CUDA may still be computed."""
    if logits.is_cuda:
        return _PendingArray(logits)
    array: npt.NDArray[np.float32] = logits.float().cpu().numpy()
    return array


class _PendingArray:
    """A copy that is under way; ``np.asarray`` waits for it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        tensor = tensor.float()
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        # blocking: the thread sleeps until then, and leaves its core to the tokenizer
        self._copied = torch.cuda.Event(blocking=True)
        self._copied.record(torch.cuda.current_stream(tensor.device))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        self._copied.synchronize()
        return np.array(self._host.numpy(), dtype=dtype)


class EncoderBody(Protocol):
    """Embeddings and layers of an encoder, on one device."""

    def __call__(self, batch: Sequence[TokenSequence]) -> torch.Tensor:
        """Pooled states of the sequences, `(n, hidden)`; on a CPU, padding rows may follow.

        :param batch: sequences in any order; neighbors of equal length are fastest.
        """
        ...


class EncoderScorer:
    """Scores packed batches.

    :param body: made with the head's pooling.
    :param head: pooled states → logits.
    """

    padded = False

    def __init__(self, body: EncoderBody, head: Head) -> None:
        self._body = body
        self._head = head

    @torch.inference_mode()
    def score(self, batch: Sequence[TokenSequence]) -> npt.ArrayLike:
        """Score one packed batch.

        :returns: float32 logits, `(n, 1)`; on CUDA still being computed.
        """
        logits = self._head(self._body(batch))
        return download(logits[: len(batch)])


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
