"""Spherical interpolation of two models' weights, with the angle between the whole tensors."""

from __future__ import annotations

import math

from torch import Tensor

from mergecore.cuda.formula import Chunk, Facts, Formula, Sums
from mergecore.cuda.kernels.blend import combine
from mergecore.cuda.kernels.lanes import Term


class Slerp(Formula):
    """Interpolation on the sphere (Shoemake, SIGGRAPH 1985); a line where that is all but one."""

    of_task_vectors = False

    def need(self, facts: Facts) -> Sums | None:
        """⟨a,a⟩, ⟨b,b⟩ and ⟨a,b⟩."""
        return None if facts.sums else Sums(3)

    def terms(self, chunk: Chunk, facts: Facts) -> list[Term]:
        """What is summed over the tensor, of this chunk."""
        a, b = chunk.inputs
        return [(a, a), (b, b), (a, b)]

    def merge(self, chunk: Chunk, facts: Facts) -> Tensor:
        """The merged chunk, of shape (n,)."""
        aa, bb, ab = facts.sums
        s, t = factors(self.parameters["t"], aa, bb, ab)
        a, b = chunk.inputs
        return combine(a, s, b, t)


def factors(t: float, aa: float, bb: float, ab: float) -> tuple[float, float]:
    """The factors of a and b, from ⟨a,a⟩, ⟨b,b⟩ and ⟨a,b⟩."""
    cosine = _quotient(ab, _length(aa) * _length(bb))
    # NaN, of a tensor that holds one, takes the straight line, too.
    if math.isnan(cosine) or abs(cosine) > 0.9995:
        return 1.0 - t, t
    omega = math.acos(cosine)
    return math.sin((1.0 - t) * omega) / math.sin(omega), math.sin(t * omega) / math.sin(omega)


def _length(square: float) -> float:
    length = math.sqrt(square)
    return 1.0 if length <= 1e-8 else length


def _quotient(dot: float, lengths: float) -> float:
    """The cosine, between -1 and 1; NaN stays NaN."""
    cosine = dot / lengths
    return cosine if math.isnan(cosine) else min(max(cosine, -1.0), 1.0)
