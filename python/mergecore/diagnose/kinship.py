"""Are these models fine-tunes of that base? Read off how far they are from it, and from each other.

A fine-tune stays near its base: full fine-tuning moves the matrices by some thousandths to a few
hundredths of their norm, long continued pretraining by a few tenths. Weights that were trained from
other random numbers share nothing with them: ‖θᵢ − θ₀‖² = ‖θᵢ‖² + ‖θ₀‖², more than all of ‖θ₀‖.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mergecore.diagnose.figures import Figures, listed

FAR = 0.3
"""‖δ‖ / ‖θ₀‖ of the matrices from which a model has been trained long, or on something else."""
UNRELATED = 0.8
"""And from which it has nothing of the base."""
_TWINS = 0.5
"""Of the smaller ‖δ‖: two models this near to each other have gone a way together."""


@dataclass(frozen=True)
class Kinship:
    """What a model's distance from the base says of its descent."""

    verdict: str
    """`equal`, `child`, `far`, `unrelated`; `unknown` where most weights could not be compared."""
    relative: float
    """‖δ‖ / ‖θ₀‖ of all matrices together (of all tensors, where there is none)."""
    least: float
    """Of the matrix that has moved least, for its size."""
    median: float
    most: float
    most_in: str
    """The matrix that has moved most, for its size."""

    def in_words(self) -> str:
        """One sentence."""
        share = f"‖δ‖ is {self.relative:.2g} of ‖θ₀‖ in its matrices"
        where = f"{share}, up to {self.most:.2g} in {self.most_in}"
        return {
            "unknown": "cannot be compared with the base: most weights are NaN or infinite in some"
            " model, and left out",
            "equal": "is the base: nothing differs",
            "child": f"is a child of the base: {where}",
            "far": f"is far from the base: {where}; was it trained on another one, or for long?",
            "unrelated": f"is no child of the base: {where}; its own base is another",
        }[self.verdict]

    def as_json(self) -> dict[str, Any]:
        return dict(listed(asdict(self)))


def of_models(tensors: Mapping[str, tuple[Sequence[int], Figures]]) -> list[Kinship]:
    """One for each model.

    Args:
        tensors: By name, shapes and figures of all tensors.
    """
    # Norms and biases are of the same size in all models, and say nothing.
    matrices = {name: f for name, (shape, f) in tensors.items() if len(shape) > 1 and f.base_square}
    seen = matrices or {name: figures for name, (_, figures) in tensors.items()}
    total, changed = (Figures.total(of) for of in (seen.values(), (f for _, f in tensors.values())))
    profile = np.array([figures.relative for figures in seen.values()])
    kin = []
    for model, own in enumerate(profile.T):
        # Of a base that is zero there are no shares.
        known = np.nan_to_num(own, nan=0.0, posinf=np.inf)
        most = int(np.argmax(known))
        relative = float(total.relative[model])
        if changed.left_out > changed.elements:
            verdict = "unknown"
        elif not changed.norms[model]:
            verdict = "equal"
        elif relative >= UNRELATED:
            verdict = "unrelated"
        else:
            verdict = "far" if relative >= FAR else "child"
        least, median, highest = (float(f(known)) for f in (np.min, np.median, np.max))
        kin.append(Kinship(verdict, relative, least, median, highest, list(seen)[most]))
    return kin


def siblings(models: Sequence[str], figures: Figures) -> list[str]:
    """Sentences on pairs that are nearer to each other than to the base."""
    said = []
    norms, distances = figures.norms, figures.distances
    for i, one in enumerate(models):
        for j in range(i + 1, len(models)):
            shorter = min(norms[i], norms[j])
            if not shorter or distances[i, j] >= _TWINS * shorter:
                continue
            cosine = figures.cosine[i, j]
            if distances[i, j] <= 1e-6 * shorter:
                said.append(f"{one} and {models[j]} are the same model")
            else:
                said.append(
                    f"{one} and {models[j]} are nearer to each other than to the base (cosine"
                    f" {cosine:.3f}): one may come from the other, and a mean counts them twice"
                )
    return said
