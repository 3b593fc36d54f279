"""Names of settings in other packages, and ours in their place."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from .errors import ConfigurationError

_EACH_BY_NAME = "give each of its entries as a setting of its own, such as device= or dtype="
_NO_REMOTE_CODE = "leave it out: a checkpoint's own code is never run"

#: names in FlagEmbedding, sentence-transformers, rerankers and both frameworks' own rerankers
_INSTEAD = {
    "model_name": "use model",
    "model_name_or_path": "use model",
    "model_id": "use model",
    "top_k": "use top_n",
    "k": "use top_n",
    "threshold": "use score_threshold",
    "similarity_cutoff": "use score_threshold",
    "use_fp16": 'use dtype="float16", or "float32" for False',
    "use_bf16": 'use dtype="bfloat16", or "float32" for False',
    "fp16": 'use dtype="float16"',
    "torch_dtype": "use dtype",
    "devices": "use device, which takes a list too",
    "batch_size": "use max_batch_tokens: batches are filled by tokens",
    "max_tokens": "use max_length",
    "cache_dir": "use cache_folder",
    "cutoff_layer": "use cutoff_layers",
    "compress_layer": "use compress_layers",
    "activation_fn": "use normalize, and False for logits",
    "query_instruction_for_rerank": "use instruction",
    "prompt": "use instruction",
    "trust_remote_code": _NO_REMOTE_CODE,
    "model_kwargs": _EACH_BY_NAME,
    "tokenizer_kwargs": _EACH_BY_NAME,
    "processor_kwargs": _EACH_BY_NAME,
    "config_kwargs": _EACH_BY_NAME,
    "automodel_args": _EACH_BY_NAME,
    "cross_encoder_kwargs": _EACH_BY_NAME,
    "token": "log in to the hub, or set HF_TOKEN",
    "api_key": "give reranker=RemoteReranker(..., api_key=...)",
    "base_url": "give reranker=RemoteReranker(base_url)",
    "top_n": "give it to rerank(), or to an integration's BGERerank",
    "score_threshold": "give it to rerank(), or to an integration's BGERerank",
}


def reject_unknown_settings(given: Iterable[str], known: Collection[str]) -> None:
    """Refuse a keyword argument that is no setting, with the setting that may be meant.

    :raises ConfigurationError: for the first name that is not known.
    """
    for name in given:
        if name not in known:
            raise ConfigurationError(f"{name} is not a setting here: {_instead(name, known)}")


def _instead(name: str, known: Collection[str]) -> str:
    if name in _INSTEAD:
        return _INSTEAD[name]
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
