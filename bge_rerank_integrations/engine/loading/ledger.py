"""What becomes of every file and key of a checkpoint that a reference reads for scoring.

The references are transformers (4.46 to 5), sentence-transformers (5, 6) and FlagEmbedding 1.4. A
key is *obeyed*; *harmless*, as it changes no score of a pair; or *refused*, with what to do
instead. A key that is in no table is read by none of their classes: a test compares the tables
with the classes of the transformers that is installed, so that a new key is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...errors import UnsupportedModelError
from .adapter import HARMLESS, OBEYED
from .checkpoint import Checkpoint

Word = Literal["obeyed", "harmless", "refused"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes of a file or key.

    :param word: one of three.
    :param note: what it decides, why it changes nothing, or what to do instead.
    :param idle: values with which a refused key changes nothing.
    """

    word: Word
    note: str
    idle: tuple[Any, ...] = (None,)


# values with which a refused key changes nothing, beside None
_IDLE: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(["add_cross_attention", "is_decoder", "is_encoder_decoder"], (False,)),
    **dict.fromkeys(["fix_mistral_regex", "from_slow"], (False,)),
    **dict.fromkeys(["compression_config", "pruned_heads", "quantization_config"], ({},)),
    "configuration_files": ([], ["config.json"]),
    "fast_tokenizer_files": ([], ["tokenizer.json"]),
    "head_type": ("simple",),
    "init_inputs": ([], ()),
    "layer_wise": (True,),
    "lora_adaptations": ([],),
    "position_embedding_type": ("absolute",),
}


def _table(
    obeyed: Mapping[str, str],
    harmless: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
) -> dict[str, Entry]:
    """A table of names, from each note and the names that it is about."""
    return {
        name: Entry(word, note, (None, *_IDLE.get(name, ())))
        for word, notes in zip(get_args(Word), (obeyed, harmless, refused), strict=True)
        for note, names in (notes or {}).items()
        for name in names.split()
    }


FILES: Mapping[str, Entry] = _table(
    obeyed={
        "the model": "config.json",
        "the tokenizer": "tokenizer.json tokenizer_config.json",
        "special and added tokens, where tokenizer_config.json has no added_tokens_decoder": (
            "special_tokens_map.json added_tokens.json"
        ),
        "the vocabulary, where there is no tokenizer.json": (
            "vocab.txt vocab.json merges.txt sentencepiece.bpe.model spiece.model spm.model "
            "tokenizer.model bpe.codes"
        ),
        "the text of a pair": "chat_template.jinja",
        "sentence-transformers' modules": (
            "modules.json sentence_bert_config.json config_sentence_transformers.json"
        ),
        "the weights": "model.safetensors",
        "the file of each tensor, without model.safetensors": "model.safetensors.index.json",
        "an adapter of LoRA": "adapter_config.json adapter_model.safetensors",
    },
    harmless={
        "for generating text": "generation_config.json",
        "for images and sound": "preprocessor_config.json processor_config.json",
        "a named template is asked for by name": "additional_chat_templates",
    },
    refused={
        "rename it to sentence_bert_config.json": (
            "sentence_roberta_config.json sentence_distilbert_config.json "
            "sentence_camembert_config.json sentence_albert_config.json "
            "sentence_xlm-roberta_config.json sentence_xlnet_config.json"
        ),
    },
)

#: keys of adapter_config.json; any other that has a value is refused, for peft adds methods
ADAPTER: Mapping[str, Entry] = _table(
    obeyed={"what is added to the base, and how much": " ".join(sorted(OBEYED))},
    harmless={"for training": " ".join(sorted(HARMLESS))},
)

#: what any tokenizer class reads of tokenizer_config.json; those of slow classes alone are left out
TOKENIZER_CONFIG: Mapping[str, Entry] = _table(
    obeyed={
        "defaults of its class": "tokenizer_class",
        "whether token types are sent": "model_input_names",
        "must agree with tokenizer.json where that has no BertNormalizer": (
            "do_lower_case strip_accents tokenize_chinese_chars"
        ),
        "must agree with tokenizer.json where that has no ByteLevel of its own": "add_prefix_space",
        "must agree with the template of tokenizer.json": "add_bos_token add_eos_token src_lang",
        "must agree with the normalizer of tokenizer.json": "keep_accents split_by_punct",
        "added to the vocabulary": (
            "added_tokens_decoder additional_special_tokens extra_special_tokens "
            "model_specific_special_tokens bos_token eos_token unk_token sep_token pad_token "
            "cls_token mask_token"
        ),
        "special tokens in a text are text": "split_special_tokens",
        "long_documents where a call says nothing": "truncation_side",
        "max_length where a call says nothing": "model_max_length max_len",
        "the text of a pair": "chat_template",
        "a tokenizer of its own class is refused": "auto_map",
    },
    harmless={
        "a pair by itself has no padding": "padding_side pad_token_type_id pad_to_multiple_of",
        "for decoding": (
            "clean_up_tokenization_spaces errors spaces_between_special_tokens "
            "use_source_tokenizer "
            "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
        ),
        "offsets alone": "trim_offsets",
        "paths of where it was saved": (
            "name_or_path tokenizer_file vocab_file merges_file spm_file special_tokens_map_file "
            "added_tokens_file"
        ),
        "for conversion; tokenizer.json has its result": (
            "legacy sp_model_kwargs vocab vocab_type merges unk_id do_basic_tokenize never_split "
            "wordpieces_prefix clean_text remove_space legacy_behaviour extra_ids offset "
            "mask_token_sent language_codes tokenizer_type"
        ),
        "defaults of calls that give their own": "max_length stride truncation_strategy tgt_lang",
        "about chats, other tasks or the library": (
            "use_default_system_prompt processor_class backend files_loaded verbose is_local "
            "local_files_only response_template response_schema chat_control_tokens use_fast "
            "transformers_version return_token_type_ids grounded_generation_template "
            "tool_use_template"
        ),
    },
    refused={
        "transformers reads the tokenizer from the file that it names for its version; copy that "
        "file to tokenizer.json and take the key out": "fast_tokenizer_files",
        "load it with transformers' AutoTokenizer and save it, so that tokenizer.json has the "
        "change": "from_slow fix_mistral_regex",
        "give the arguments by name": "init_inputs",
    },
)

_ANY_CONFIG = _table(
    obeyed={
        "the model's class": "model_type architectures",
        "the number of labels": "num_labels id2label",
        "activation, saved length": "sentence_transformers sbert_ce_default_activation_function",
        "a name of the catalog": "_name_or_path name_or_path",
        "the tokenizer's class": "tokenizer_class",
    },
    refused={
        "only floating-point weights can be read; take the checkpoint it was quantized from": (
            "quantization_config compression_config"
        ),
        "transformers reads the config from the file that it names for its version; copy that "
        "file to config.json and take the key out": "configuration_files",
    },
)

_ENCODER = _ANY_CONFIG | _table(
    obeyed={
        "sizes and layers": (
            "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
            "max_position_embeddings pad_token_id"
        ),
    },
    harmless={
        "for training, generating text or the library": (
            "initializer_range use_cache bos_token_id eos_token_id cls_token_id sep_token_id "
            "label2id problem_type output_hidden_states output_attentions return_dict "
            "chunk_size_feed_forward transformers_version dtype torch_dtype tie_word_embeddings "
            "torchscript use_bfloat16 gradient_checkpointing finetuning_task task_specific_params "
            "classifier_dropout decoder_start_token_id prefix cross_attention_hidden_size "
            "tie_encoder_decoder"
        ),
    },
    refused={
        "rerankers read texts in both directions; set it to false if it was trained so": (
            "is_decoder add_cross_attention is_encoder_decoder"
        ),
        "load it with transformers 4 and save it, so that the weights have the heads that are "
        "left": "pruned_heads",
    },
)

# of the decoders whose released classes are FlagEmbedding's
_RELEASED_DECODER = _ANY_CONFIG | _table(
    obeyed={
        "sizes and layers": (
            "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
            "intermediate_size max_position_embeddings pad_token_id rms_norm_eps attention_bias "
            "start_layer rope_theta rope_parameters"
        ),
    },
    harmless={
        "for training, generating text or the library": (
            "initializer_range use_cache bos_token_id eos_token_id attention_dropout "
            "tie_word_embeddings dtype torch_dtype transformers_version auto_map"
        ),
    },
)

#: by who reads the config; transformers' own class obeys all that is not here
CONFIG: Mapping[str, Mapping[str, Entry]] = {
    "transformers": _ANY_CONFIG,
    "bert": _ENCODER
    | _table(
        obeyed={"sizes and layers": "hidden_act type_vocab_size layer_norm_eps"},
        harmless={"for training": "hidden_dropout_prob attention_probs_dropout_prob"},
        refused={
            "only absolute positions are run, and transformers 5 reads any as absolute": (
                "position_embedding_type"
            ),
            "merge the adapters into the weights": "lora_adaptations",
        },
    ),
    "modernbert": _ENCODER
    | _table(
        obeyed={
            "sizes and layers": (
                "hidden_activation classifier_activation norm_eps norm_bias attention_bias "
                "mlp_bias classifier_bias classifier_pooling layer_types rope_parameters "
                "rope_scaling global_rope_theta local_rope_theta global_attn_every_n_layers "
                "local_attention"
            ),
        },
        harmless={
            "for training or other heads": (
                "initializer_cutoff_factor attention_dropout embedding_dropout mlp_dropout "
                "decoder_bias deterministic_flash_attn sparse_prediction sparse_pred_ignore_index "
                "reference_compile repad_logits_with_grad"
            ),
        },
    ),
    "layerwise": _RELEASED_DECODER
    | _table(
        obeyed={"sizes and layers": "hidden_act scale_emb scale_depth head_multi rope_scaling"},
        harmless={
            "the same product in parts": "pretraining_tp",
            "not read with heads of one row": "dim_model_base",
        },
        refused={
            "FlagEmbedding's own inference gives no score of such heads either": "head_type",
        },
    ),
    "lightweight": _RELEASED_DECODER
    | _table(
        obeyed={
            "sizes and layers": (
                "hidden_activation head_dim query_pre_attn_scalar sliding_window layer_sep "
                "final_logit_softcapping"
            ),
        },
        harmless={
            "the released class does not read it": (
                "hidden_act attn_logit_softcapping use_bidirectional_attention layer_types"
            ),
            "for training, generating text or the library": "cache_implementation",
        },
        refused={
            "only models with a head for each layer score pairs": "layer_wise",
            "the released class has no scaled positions": "rope_scaling",
        },
    ),
}


def check(
    checkpoint: Checkpoint, file: str, content: Mapping[str, Any], table: Mapping[str, Entry]
) -> None:
    """Refuse a file with a key that a reference obeys and this package does not.

    :param content: what the file says.
    :raises UnsupportedModelError: naming the file, the key and what to do instead.
    """
    for key, value in content.items():
        entry = table.get(key)
        if entry is not None and entry.word == "refused" and value not in entry.idle:
            raise UnsupportedModelError(
                f"{checkpoint.folder.name}/{file} has {key} {value!r:.80}, which is not obeyed "
                f"here: {entry.note}"
            )


def obeyed(checkpoint: Checkpoint, reader: str) -> Iterator[tuple[str, str]]:
    """What of a checkpoint's files decides its scores, for ``bge-rerank models``.

    :param reader: which table of :data:`CONFIG` its config is read by.
    :returns: a file or key, and its value or what it decides.
    """
    for name, entry in FILES.items():
        if entry.word == "obeyed" and checkpoint.path(name).exists():
            yield name, entry.note
    tables = {
        "config.json": CONFIG[reader],
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "adapter_config.json": ADAPTER,
    }
    for name, table in tables.items():
        for key, value in checkpoint.read_json(name).items():
            if key in table and table[key].word == "obeyed" and value is not None:
                # a model's name is what is copied
                yield f"{name}: {key}", repr(value)[: None if "name_or_path" in key else 60]
