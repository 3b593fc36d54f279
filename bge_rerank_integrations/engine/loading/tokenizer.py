"""A checkpoint's tokenizer with all that was saved with it.

``tokenizer.json`` is read by the tokenizers library. What else stands beside it is applied as the
fast classes of transformers 4 do, which most models were trained with; where those of transformers
5 read it differently, the files contradict each other, and the checkpoint is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers

from ...errors import ModelLoadError, UnsupportedModelError
from .checkpoint import Checkpoint
from .ledger import TOKENIZER_CONFIG, check
from .tokenizer_files import TokenizerFiles, slow_message, token_text

_VOCABULARIES = ("vocab.txt", "vocab.json", "*.model", "*.codes", "*.tiktoken", "tekken.json")
# every script that a vocabulary may be of alone
_SAMPLE = "a panda is 1 bear . медведь パンダ 熊猫 곰 الدب भालू หมี δ"
# of scripts that died out
_UNKNOWN = "𐀀 𐂂 𒀀"


def load_tokenizer(files: TokenizerFiles, *, lowercase: bool) -> tuple[Tokenizer, bool]:
    """The checkpoint's fast tokenizer, without truncation and padding.

    :param lowercase: whether texts are put into lower case first.
    :returns: the tokenizer, and whether it was saved to cut long texts on their left.
    :raises ModelLoadError: if its files are missing or not readable.
    :raises UnsupportedModelError: if a setting is not obeyed, or contradicts ``tokenizer.json``.
    """
    checkpoint = files.checkpoint
    check(f"{checkpoint.folder.name}/tokenizer_config.json", files.settings, TOKENIZER_CONFIG)
    if files.has_own_class:
        raise UnsupportedModelError(
            f"{checkpoint.folder.name} has a {files.kind}, which only code of its own can run, and "
            "code of a checkpoint is never run"
        )
    if files.is_a("slow"):
        raise UnsupportedModelError(slow_message(checkpoint.folder.name, files.kind))
    try:
        tokenizer, direction = _read_tokenizer(files)
    except (ModelLoadError, UnsupportedModelError):
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelLoadError(
            f"{checkpoint.folder.name}: the tokenizer cannot be read: {error}"
        ) from error
    if lowercase:
        saved = tokenizer.normalizer
        first = normalizers.Lowercase()
        tokenizer.normalizer = first if saved is None else normalizers.Sequence([first, saved])
    _check_vocabulary(tokenizer, checkpoint)
    return tokenizer, files.settings.get("truncation_side", direction) == "left"


def _read_tokenizer(files: TokenizerFiles) -> tuple[Tokenizer, str | None]:
    """The tokenizer, and the side on which ``tokenizer.json`` cuts."""
    folder = files.checkpoint.tokenizer_folder
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        direction = (tokenizer.truncation or {}).get("direction")
        # before anything is tokenized: a file may ask for any amount of padding
        tokenizer.no_truncation()
        tokenizer.no_padding()
        _check_consistency(tokenizer, files)
        _apply(tokenizer, files)
        return tokenizer, direction
    found = [path for pattern in _VOCABULARIES for path in folder.glob(pattern)]
    if not found:
        raise ModelLoadError(
            f"{folder.name} has no tokenizer: neither tokenizer.json nor a vocabulary "
            f"({', '.join(_VOCABULARIES)}). Copy the tokenizer's files from the base model"
        )
    is_sentencepiece = any(path.suffix == ".model" for path in found)
    needed = ("sentencepiece", "google.protobuf") if is_sentencepiece else ()
    if missing := [name for name in needed if not _is_installed(name)]:
        names = " ".join(name.replace("google.", "") for name in missing)
        raise ModelLoadError(
            f"{folder.name} has no tokenizer.json, and to convert {found[0].name} takes "
            f"{' and '.join(missing)}: pip install {names}"
        )
    # transformers takes seconds to import
    from .transformers_models import convert_tokenizer

    tokenizer = convert_tokenizer(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _apply(tokenizer: Tokenizer, files: TokenizerFiles) -> None:
    """Give a tokenizer what its class is made with, as transformers 4 does."""
    settings = files.settings
    tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    if tokens := files.added_tokens(tokenizer):
        tokenizer.add_tokens(tokens)
    state = _state(tokenizer.normalizer)
    if files.is_a("bert") and state.get("type") == "BertNormalizer":
        wanted = {
            "lowercase": settings.get("do_lower_case", True),
            "strip_accents": settings.get("strip_accents"),
            "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
        }
        if files.is_a("keeps Chinese"):
            wanted["handle_chinese_chars"] = state["handle_chinese_chars"]
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=state.get("clean_text", True), **wanted
        )
    state = _state(tokenizer.pre_tokenizer)
    has_space = settings.get("add_prefix_space", False if files.is_a("byte level") else None)
    if state.pop("type", None) == "ByteLevel" and has_space is not None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
            **{**state, "add_prefix_space": bool(has_space), "trim_offsets": True}
        )


def _check_consistency(tokenizer: Tokenizer, files: TokenizerFiles) -> None:
    """Refuse what the references read differently.

    :raises UnsupportedModelError: naming the key and what ``tokenizer.json`` does.
    """
    settings, kind = files.settings, files.kind

    def require(agrees: bool, key: str, otherwise: str) -> None:
        if not agrees:
            raise UnsupportedModelError(
                f"{files.checkpoint.folder.name}: tokenizer_config.json says {key} "
                f"{settings[key]!r:.80}, and tokenizer.json {otherwise}. Save the tokenizer with "
                "the transformers that the model was trained with, so that both say the same"
            )

    if getattr(tokenizer.model, "dropout", None):
        raise UnsupportedModelError(
            f"{files.checkpoint.folder.name}: tokenizer.json has a dropout of "
            f"{tokenizer.model.dropout}, which makes scores random: set it to null"
        )
    if files.is_a("generic"):
        return
    normalizer = tokenizer.normalizer
    is_bert = _state(normalizer).get("type") == "BertNormalizer"
    if files.is_a("unigram") or (files.is_a("bert") and not is_bert):
        for key, text, changed in (("do_lower_case", "A", True), ("keep_accents", "é", False)):
            if key in settings and (kind != "DebertaV2Tokenizer" or key == "do_lower_case"):
                does = normalizer is not None and normalizer.normalize_str(text) != text
                does = does and normalizer.normalize_str(text)[:1] in ("a", "e")
                require(bool(settings[key]) == (does is changed), key,
                        f"{'changes' if does else 'keeps'} {text!r}")  # fmt: skip
    if kind == "DebertaV2Tokenizer" and settings.get("split_by_punct"):
        splits = any(
            each.get("type") == "Punctuation" for each in _parts(_state(tokenizer.pre_tokenizer))
        )
        require(splits, "split_by_punct", "does not split at punctuation")
    has_space = _prefix_space(tokenizer)
    if settings.get("add_prefix_space") is not None and has_space is not None:
        agrees = bool(settings["add_prefix_space"]) == has_space
        require(
            agrees, "add_prefix_space", f"begins texts {'with' if has_space else 'without'} one"
        )
    _check_template(tokenizer, files, require)


def _check_template(tokenizer: Tokenizer, files: TokenizerFiles, require: Any) -> None:
    """Special tokens that classes of transformers 5 write into the template."""
    settings = files.settings
    pair = tokenizer.encode("a", "b")
    mask = pair.special_tokens_mask
    special = [token for token, is_special in zip(pair.tokens, mask, strict=True) if is_special]
    if special and (files.is_a("bert") or files.kind == "RobertaTokenizer"):
        for key, token in (("cls_token", special[0]), ("sep_token", special[-1])):
            if key in settings and token_text(settings[key]) is not None:
                require(token_text(settings[key]) == token, key, f"has {token!r} in its place")
        unknown = getattr(tokenizer.model, "unk_token", None)
        if unknown and token_text(settings.get("unk_token")) not in (None, unknown):
            require(False, "unk_token", f"has {unknown!r} in its place")
    if files.is_a("adds ends"):
        single = tokenizer.encode("a").tokens
        for key, name, at in (
            ("add_bos_token", "bos_token", 0),
            ("add_eos_token", "eos_token", -1),
        ):
            end = files.token(name)
            if end is not None and isinstance(settings.get(key), bool):
                has = bool(single) and single[at] == end
                require(has == settings[key], key, f"{'adds' if has else 'does not add'} {end!r}")
    if "src_lang" in settings and special:
        language = str(settings["src_lang"])
        require(language in special, "src_lang", f"adds {special[-1]!r}")


def _prefix_space(tokenizer: Tokenizer) -> bool | None:
    """Whether ``tokenizer.json`` puts a space before a text; None where a setting decides it."""
    pre_tokenizer = _state(tokenizer.pre_tokenizer)
    if pre_tokenizer.get("type") == "ByteLevel":
        return None
    for part in (*_parts(_state(tokenizer.normalizer)), *_parts(pre_tokenizer)):
        if part.get("type") == "Prepend":
            return True
        if part.get("type") == "ByteLevel":
            return bool(part["add_prefix_space"])
        if part.get("type") == "Metaspace":
            return bool(part.get("prepend_scheme", "always") != "never")
    return None


def _state(part: Any) -> dict[str, Any]:
    """A normalizer or pre-tokenizer as ``tokenizer.json`` has it; empty if there is none."""
    state: dict[str, Any] = {} if part is None else json.loads(part.__getstate__())
    return state


def _parts(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield state
    for name in ("normalizers", "pretokenizers"):
        for part in state.get(name, ()):
            yield from _parts(part)


def _check_vocabulary(tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
    """Refuse a vocabulary that knows nothing: transformers 5 makes one where the files are missing.

    :raises ModelLoadError: if a sample of many scripts has no known token.
    """
    known, unknown = (
        set(tokenizer.encode(text, add_special_tokens=False).ids) for text in (_SAMPLE, _UNKNOWN)
    )
    if known <= unknown:
        raise ModelLoadError(
            f"{checkpoint.folder.name}: its tokenizer knows no token of a sample text in many "
            "scripts. Copy the tokenizer's files from the base model"
        )
