"""The engine where sentence-transformers' ``CrossEncoder`` is expected, such as in its evaluators.

::

    from sentence_transformers.cross_encoder.evaluation import CrossEncoderNanoBEIREvaluator

    from bge_rerank_integrations import RerankEngine
    from bge_rerank_integrations.cross_encoder import CrossEncoder

    CrossEncoderNanoBEIREvaluator()(CrossEncoder(RerankEngine.shared("tiny")))

Signatures and answers are those of sentence-transformers 6.2; the package is not needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from bge_rerank_integrations.checks import is_int, require
from bge_rerank_integrations.engine.engine import RerankEngine
from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.inputs import check_documents, check_query
from bge_rerank_integrations.ranking import Scores, check_selection, rank
from bge_rerank_integrations.setting_types import CallOverrides

Activation = Callable[[torch.Tensor], torch.Tensor]


class CrossEncoder:
    """Scores and ranks as sentence-transformers' ``CrossEncoder`` does, on an engine.

    These arguments of both methods mean something else to an engine:

    * ``prompt`` is the option ``instruction``; ``prompt_name`` is refused without it.
    * ``batch_size`` must be at least 1 and changes nothing: the engine fills its batches by tokens.
    * ``activation_fn`` takes float32 logits of the shape ``(pairs, 1)``; None means what the
      engine's option ``normalize`` says, by default the activation saved with the model.
    * ``show_progress_bar=None`` shows none.
    * ``device``, ``pool`` and ``chunk_size`` must be None: the engine has its devices.

    Errors are the engine's, and ``ConfigurationError`` for what this list refuses.

    :param engine: what scores.
    """

    #: one score a pair, as every reranker
    num_labels = 1

    def __init__(self, engine: RerankEngine) -> None:
        self.engine = engine
        self.model_card_data = _NoModelCard()

    def predict(
        self,
        inputs: Iterable[Sequence[str]] | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,  # noqa: ARG002
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: None = None,
        pool: None = None,
        chunk_size: None = None,
    ) -> Any:
        """Score (query, document) pairs; any number of them, read as they are needed.

        :param inputs: pairs, or one pair of strings.
        :param apply_softmax: changes nothing: it is over labels, and there is one.
        :param convert_to_tensor: comes before ``convert_to_numpy``.
        :returns: float32 scores ``(pairs,)`` in input order: an array of numpy, with
            ``convert_to_tensor`` a tensor on the CPU, with neither a list of tensors; of one pair
            the one element of it.
        """
        _refuse(device=device, pool=pool, chunk_size=chunk_size)
        is_pair = _is_pair(inputs)
        pairs: Any = [_listed(inputs)] if is_pair else _listed(inputs)
        scores = self._scores(
            pairs, prompt_name, prompt, batch_size, show_progress_bar, activation_fn
        )
        tensor = torch.tensor(scores, dtype=torch.float32)
        answer: Any = list(tensor)
        if convert_to_tensor:
            answer = tensor
        elif convert_to_numpy:
            answer = tensor.numpy()
        return answer[0] if is_pair else answer

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        device: None = None,
        pool: None = None,
        chunk_size: None = None,
    ) -> list[dict[str, Any]]:
        """Rank documents by relevance to the query, best first.

        :param top_k: how many to keep; None keeps all.
        :param return_documents: answer with the texts, too.
        :returns: of each kept document its index as ``corpus_id``, its ``score`` and, where it is
            asked for, its ``text``.
        :raises ConfigurationError: for a ``top_k`` below 1, too.
        """
        _refuse(device=device, pool=pool, chunk_size=chunk_size)
        check_selection(top_k, None)
        check_query(query)
        documents = check_documents(documents)
        pairs = [(query, document) for document in documents]
        scores = self._scores(
            pairs, prompt_name, prompt, batch_size, show_progress_bar, activation_fn
        )
        return [
            {"corpus_id": kept.index, "score": kept.score}
            | ({"text": documents[kept.index]} if return_documents else {})
            for kept in rank(scores, top_n=top_k)
        ]

    def _scores(
        self,
        pairs: Iterable[Sequence[str]],
        prompt_name: str | None,
        prompt: str | None,
        batch_size: int,
        show_progress_bar: bool | None,
        activation_fn: Activation | None,
    ) -> Scores:
        if prompt is None and prompt_name is not None:
            raise ConfigurationError(
                f"an engine has no prompts by name, got prompt_name={prompt_name!r}: "
                "give its text as prompt"
            )
        require(is_int(batch_size, 1), "batch_size", "an int of at least 1", batch_size)
        options: CallOverrides = {} if prompt is None else {"instruction": prompt}
        scores = self.engine.score_pairs(pairs, show_progress=bool(show_progress_bar), **options)
        if activation_fn is None:
            return scores
        logits = torch.tensor(scores.logits, dtype=torch.float32)
        activated = activation_fn(logits[:, None]).flatten().tolist()
        # no logits any more: this activation may reverse their order
        return Scores.from_logits(activated, False, usage=scores.usage, model=scores.model)


class _NoModelCard:
    """Where sentence-transformers' evaluators leave figures for a model card; none is written."""

    def set_evaluation_metrics(self, *figures: object) -> None:
        """Take figures."""


def _refuse(**arguments: None) -> None:
    for name, value in arguments.items():
        require(value is None, name, "None: the engine has its devices", value)


def _listed(inputs: Any) -> Any:
    """Rows of an array are not sequences, lists are."""
    return inputs.tolist() if isinstance(inputs, np.ndarray) else inputs


def _is_pair(inputs: Any) -> bool:
    """Whether these are two texts and not pairs, by the rule of sentence-transformers."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 1 and inputs.size > 0
    return isinstance(inputs, (list, tuple)) and len(inputs) > 0 and isinstance(inputs[0], str)
