"""Logits → probabilities of relevance, fitted on judged pairs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from bge_rerank_integrations.checks import is_finite
from bge_rerank_integrations.errors import ConfigurationError
from bge_rerank_integrations.ranking import sigmoid

_MAX_STEPS = 100
# log-odds of the fit stop changing below this
_TOLERANCE = 1e-10
_BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes a probability of a model's logit: ``sigmoid(scale * logit + shift)``.

    :param model: the model whose logits it was fitted on.
    :param scale: above 0, so that the order of documents stays.
    :param shift: added to the scaled logit.
    """

    model: str
    scale: float
    shift: float

    def __call__(self, logit: float) -> float:
        """The probability that a document with this logit is relevant."""
        return sigmoid(self.scale * logit + self.shift)

    @classmethod
    def fit(cls, model: str, logits: Sequence[float], relevant: Sequence[bool]) -> Calibration:
        """Fit scale and shift by maximum likelihood.

        Platt, Probabilistic outputs for support vector machines, 1999, with his targets, which keep
        the probabilities of few pairs away from 0 and 1; by Newton's method with halved steps (Lin,
        Lin and Weng, A note on Platt's probabilistic outputs, 2007).

        :param logits: of judged pairs.
        :param relevant: whether each is relevant.
        :raises ConfigurationError: unless there are pairs of both kinds, and the relevant ones have
            larger logits on the whole.
        """
        n_relevant = sum(relevant)
        n_other = len(relevant) - n_relevant
        if not n_relevant or not n_other:
            raise ConfigurationError(
                "calibration needs relevant pairs and others, got "
                f"{n_relevant} relevant ones of {len(relevant)}"
            )
        high, low = (n_relevant + 1) / (n_relevant + 2), 1 / (n_other + 2)
        targets = [high if is_relevant else low for is_relevant in relevant]
        scale, shift = _newton(logits, targets, math.log((n_relevant + 1) / (n_other + 1)))
        if scale <= 0:
            raise ConfigurationError(
                f"{model} ranks irrelevant documents above relevant ones: no scale above 0 fits"
            )
        return cls(model, scale, shift)

    @classmethod
    @lru_cache(maxsize=16)
    def read(cls, path: str) -> Calibration:
        """Read a file that :meth:`save` wrote; files are read once in a process.

        :raises ConfigurationError: if it cannot be read, or is no calibration.
        """
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"calibration {path} cannot be read: {error}") from error
        values = given if isinstance(given, dict) else {}
        model, scale, shift = (values.get(name) for name in ("model", "scale", "shift"))
        if not (isinstance(model, str) and is_finite(scale) and is_finite(shift) and scale > 0):
            raise ConfigurationError(
                f"calibration {path} must have a model's name, a scale above 0 and a shift"
            )
        return cls(model, float(scale), float(shift))

    def save(self, path: Path, about: dict[str, object]) -> None:
        """Write a small JSON file.

        :param about: how it was fitted, for its readers.
        :raises ConfigurationError: if the file cannot be written.
        """
        try:
            path.write_text(json.dumps(asdict(self) | about, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"calibration {path} cannot be written: {error}") from error


def expected_calibration_error(
    probabilities: Sequence[float], relevant: Sequence[bool], bins: int = _BINS
) -> float:
    """How far probabilities are from the shares of relevant pairs, 0 to 1.

    The mean over bins of equal width, weighted by their pairs, of the difference between mean
    probability and share (Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities
    using Bayesian binning, 2015).

    :param probabilities: from 0 to 1, one a pair.
    """
    differences = [0.0] * bins
    for probability, is_relevant in zip(probabilities, relevant, strict=True):
        differences[min(int(probability * bins), bins - 1)] += probability - is_relevant
    return sum(map(abs, differences)) / max(len(probabilities), 1)


def _newton(logits: Sequence[float], targets: Sequence[float], shift: float) -> tuple[float, float]:
    """Scale and shift of the least cross entropy, from scale 0 on."""
    scale = 0.0
    loss = _loss(logits, targets, scale, shift)
    for _ in range(_MAX_STEPS):
        gradient_scale = gradient_shift = scale_scale = scale_shift = shift_shift = 0.0
        for logit, target in zip(logits, targets, strict=True):
            probability = sigmoid(scale * logit + shift)
            error, weight = probability - target, probability * (1 - probability)
            gradient_scale += error * logit
            gradient_shift += error
            scale_scale += weight * logit * logit
            scale_shift += weight * logit
            shift_shift += weight
        # the ridge keeps equal logits, which leave the scale open, from dividing by 0
        scale_scale, shift_shift = scale_scale + 1e-9, shift_shift + 1e-9
        determinant = scale_scale * shift_shift - scale_shift * scale_shift
        step_scale = (shift_shift * gradient_scale - scale_shift * gradient_shift) / determinant
        step_shift = (scale_scale * gradient_shift - scale_shift * gradient_scale) / determinant
        size = 1.0
        while (
            new := _loss(logits, targets, scale - size * step_scale, shift - size * step_shift)
        ) > loss and size > _TOLERANCE:
            size /= 2
        scale, shift = scale - size * step_scale, shift - size * step_shift
        if loss - new <= _TOLERANCE * len(logits):
            break
        loss = new
    return scale, shift


def _loss(logits: Sequence[float], targets: Sequence[float], scale: float, shift: float) -> float:
    """Cross entropy, with the logarithm of the sigmoid computed where it does not overflow."""
    values = (scale * logit + shift for logit in logits)
    return sum(
        max(value, 0.0) - value * target + math.log1p(math.exp(-abs(value)))
        for value, target in zip(values, targets, strict=True)
    )
