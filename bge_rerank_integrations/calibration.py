"""A model's logits → probabilities of relevance, by a file that was fitted on judged pairs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from .checks import is_finite
from .errors import ConfigurationError
from .ranking import sigmoid

# of each tensor, from its middle: a fine-tune changes some of these numbers in every tensor
_BYTES_READ = 256


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes a probability of a model's logit: ``sigmoid(scale * logit + shift)``.

    :param model: name of the model whose logits it was fitted on.
    :param scale: above 0, so that the order of documents stays.
    :param shift: added to the scaled logit.
    :param weights: :func:`weights_digest` of that model.
    """

    model: str
    scale: float
    shift: float
    weights: str = ""

    def __call__(self, logit: float) -> float:
        """The probability that a document with this logit is relevant."""
        return sigmoid(self.scale * logit + self.shift)

    @classmethod
    def read(cls, path: str) -> Calibration:
        """Read a file that :meth:`save` wrote; a file that has changed is read again.

        :raises ConfigurationError: if it cannot be read, or is no calibration.
        """
        try:
            found = os.stat(path)
        except OSError as error:
            raise ConfigurationError(f"calibration {path} cannot be read: {error}") from error
        return _read(path, (found.st_mtime_ns, found.st_size, found.st_ino))

    def check_model(self, path: str, model: str, weights: str) -> None:
        """Check that this is the calibration of a model, wherever it lies.

        :param path: of this calibration's file.
        :param model: the model's name.
        :param weights: its :func:`weights_digest`.
        :raises ConfigurationError: if it is another model's.
        """
        if self.weights != weights:
            raise ConfigurationError(
                f"calibration {path} was fitted on other weights ({self.model}) than those of "
                f"{model}: fit one with bge-rerank calibrate --model {model}"
            )

    def save(self, path: Path, about: dict[str, object]) -> None:
        """Write a small JSON file.

        :param about: how it was fitted, for its readers.
        :raises ConfigurationError: if the file cannot be written.
        """
        unfinished = path.with_name(f"{path.name}.unfinished")
        try:
            unfinished.write_text(
                json.dumps(asdict(self) | about, indent=1) + "\n", encoding="utf-8"
            )
            # atomic: an engine that reads it meanwhile gets the old file or the new one
            unfinished.replace(path)
        except OSError as error:
            raise ConfigurationError(f"calibration {path} cannot be written: {error}") from error


@lru_cache(maxsize=16)
def _read(path: str, _version: tuple[int, ...]) -> Calibration:
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"calibration {path} cannot be read: {error}") from error
    values = given if isinstance(given, dict) else {}
    model, scale, shift, weights = map(values.get, ("model", "scale", "shift", "weights"))
    are_names = isinstance(model, str) and isinstance(weights, str)
    if not (are_names and is_finite(scale) and is_finite(shift) and scale > 0):
        raise ConfigurationError(
            f"calibration {path} must have a model's name and weights, a scale above 0 and a shift"
        )
    return Calibration(str(model), float(scale), float(shift), str(weights))


def weights_digest(folder: Path) -> str:
    """A digest of a checkpoint's tensors: names, types, shapes, and some bytes of each.

    It takes some milliseconds, and is the same wherever the files lie and however they are sharded.

    :param folder: of the checkpoint; those of sentence-transformers' modules in it count, too.
    :raises ConfigurationError: if its safetensors files cannot be read.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("[0-9]*_*/*.safetensors")])
    try:
        tensors = sorted(
            (str(path.relative_to(folder).parent), *tensor)
            for path in files
            for tensor in _tensors(path)
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder}: the weights cannot be read: {error}") from error
    return hashlib.sha256(json.dumps(tensors).encode()).hexdigest()[:32]


def _tensors(path: Path) -> Iterator[tuple[str, str, list[int], str]]:
    """Name, type, shape and some bytes of each tensor, as the format of safetensors lays them."""
    with path.open("rb") as file:
        first = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(first - 8))
        header.pop("__metadata__", None)
        for name, about in header.items():
            start, end = about["data_offsets"]
            size = min(end - start, _BYTES_READ)
            file.seek(first + (start + end - size) // 2)
            yield name, about["dtype"], about["shape"], file.read(size).hex()
