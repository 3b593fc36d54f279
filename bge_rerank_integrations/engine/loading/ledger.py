"""What becomes of every file and key of a checkpoint that a reference reads for scoring.

The references are transformers (4.46 to 5), sentence-transformers (5, 6) and FlagEmbedding 1.4. A
key is *obeyed*; *harmless*, as it changes no score of a pair; or *refused*, with what to do
instead. A key that is in no table is read by none of their classes: a test compares the tables
with the classes of the transformers that is installed, so that a new key is noticed.

The tables are in ``ledger.json``: for each file its words, for each word notes (what a key decides,
why it changes nothing, or what to do instead) with the keys that they are about. ``idle`` has the
values, beside null, with which a refused key changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import UnsupportedModelError

Word = Literal["obeyed", "harmless", "refused"]
_TABLES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Entry:
    """What becomes of a file or key.

    :param word: one of three.
    :param note: what it decides, why it changes nothing, or what to do instead.
    :param idle: values with which a refused key changes nothing.
    """

    word: Word
    note: str
    idle: tuple[Any, ...]


def _table(*names: str) -> dict[str, Entry]:
    """Tables joined, the last first."""
    return {
        key: Entry(word, note, (None, *_TABLES["idle"].get(key, ())))
        for name in names
        for word, notes in _TABLES[name].items()
        for note, keys in notes.items()
        for key in keys
    }


FILES: Mapping[str, Entry] = _table("files")
#: any other key that has a value is refused, for peft adds methods
ADAPTER: Mapping[str, Entry] = _table("adapter_config.json")
#: what any tokenizer class reads; keys of slow classes alone are left out
TOKENIZER_CONFIG: Mapping[str, Entry] = _table("tokenizer_config.json")
#: by who reads the config; transformers' own class obeys all that is not here
CONFIG: Mapping[str, Mapping[str, Entry]] = {
    "transformers": _table("config.json"),
    **{name: _table("config.json", "encoders", name) for name in ("bert", "modernbert")},
    # whose released classes are FlagEmbedding's
    **{
        name: _table("config.json", "released decoders", name)
        for name in ("layerwise", "lightweight")
    },
}


def check(file: str, content: Mapping[str, Any], table: Mapping[str, Entry]) -> None:
    """Refuse a file with a key that a reference obeys and this package does not.

    :param file: with its folder, for the message.
    :param content: what the file says.
    :raises UnsupportedModelError: naming the file, the key and what to do instead.
    """
    for key, value in content.items():
        entry = table.get(key)
        if entry is not None and entry.word == "refused" and value not in entry.idle:
            raise UnsupportedModelError(
                f"{file} has {key} {value!r:.80}, which is not obeyed here: {entry.note}"
            )
