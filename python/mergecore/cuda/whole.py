"""How is a tensor merged whose matrices are merged, or modified, as a whole?

The engine's `run/whole.rs`: unit by unit, by the method's `solve` or element by element; then the
modifiers; then it is added to the base.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mergecore.cuda.boost import boost
from mergecore.cuda.formula import Formula, Parameters
from mergecore.cuda.kernels.blend import attach
from mergecore.cuda.parts import Part, Unit, Whole
from mergecore.cuda.spectral import tolerance as tolerances
from mergecore.cuda.spectral.account import Account
from mergecore.cuda.stream import Stream
from mergecore.cuda.vectors import NotFiniteError, Vectors
from mergecore.errors import RunError


@dataclass(frozen=True)
class Told:
    """What is known of one matrix: a row of the engine's report."""

    of: str
    """The method or modifier."""
    part: str
    """The matrix's label in the tensor; empty for the only one."""
    account: Account


@dataclass(frozen=True)
class Request:
    """One tensor's merge, as far as matrices see it."""

    method: str
    formula: Formula
    modifiers: Sequence[Mapping[str, Any]]
    whole: Whole
    stored: Sequence[str]
    """The dtype that each model was rounded to."""
    sources: Sequence[str]
    """What messages call the base, then each model."""
    told: list[Told] = field(default_factory=list)
    """What is known of the matrices, in their order; appended to."""

    def merge(
        self, models: Sequence[Tensor], base: Tensor, unit: Unit, onto: Tensor | None = None
    ) -> Tensor:
        """The unit's merged elements, flat, in the arithmetic's dtype.

        Args:
            models: As in `delta`, and so are the others.
            base: Those of the base.
            unit: One of `whole.units`.
            onto: What the merged task vector is added to, where that is not the base.

        Raises:
            RunError: As `delta` does.
        """
        delta = self.delta(models, base, unit)
        lambda_ = float(self.formula.parameters.get("lambda", 1.0))
        return attach(delta, (base if onto is None else onto).to(delta.dtype), lambda_)

    def delta(self, models: Sequence[Tensor], base: Tensor, unit: Unit) -> Tensor:
        """The unit's merged task vector, flat, without λ, before it is added to the base.

        Args:
            models: The unit's elements of each model, flat and contiguous, of any float dtype.
            base: Those of the base.
            unit: One of `whole.units`.

        Raises:
            RunError: A matrix holds NaN or infinities, or a result is not certified.
        """
        if self.whole.solved:
            delta = self._solved(models, base, unit)
        else:
            stream = Stream(self.formula)
            stream.survey(models, base)
            delta = stream.delta(models, base, 0)
        for modifier, is_meant in zip(self.modifiers, self.whole.reshaped, strict=True):
            if is_meant:
                self._boost(delta, models, base, unit, modifier)
        return delta

    def _solved(self, models: Sequence[Tensor], base: Tensor, unit: Unit) -> Tensor:
        """Matrix by matrix, by the method."""
        dtype = self.formula.place.dtype
        delta = torch.zeros(base.shape, dtype=dtype, device=base.device)
        for part in unit.parts:
            with _Within(self.formula.place.name, part):
                vectors = self._vectors(models, base, part)
                matrix, account = self.formula.solve(vectors, self.formula.parameters)
            self.told.append(Told(self.method, part.label, account))
            part.put(delta, matrix)
        return delta

    def _boost(
        self,
        delta: Tensor,
        models: Sequence[Tensor],
        base: Tensor,
        unit: Unit,
        modifier: Mapping[str, Any],
    ) -> None:
        parameters = modifier["parameters"]
        tolerance = parameters["rank_tol"]
        for part in unit.parts:
            with _Within(self.formula.place.name, part):
                # Its numbers are overwritten, and then put where they came from.
                matrix = part.of(delta).clone(memory_format=torch.contiguous_format)
                if not torch.isfinite(matrix).all():
                    raise NotFiniteError(self._unfinite(models, base))
                if self.whole.solved:
                    # What a method has made of singular values is no longer as long as what
                    # rounding made of them.
                    of_sum, noise = tolerances.of_arithmetic(tolerance), 0.0
                else:
                    weights = _summed(self.formula.parameters, len(models))
                    of_sum = tolerance
                    noise = self._vectors(models, base, part).noise(weights)
                account = boost(matrix, parameters, of_sum, noise)
            self.told.append(Told("boost", part.label, account))
            part.put(delta, matrix)

    def _vectors(self, models: Sequence[Tensor], base: Tensor, part: Part) -> Vectors:
        own = [part.of(model) for model in models]
        dtype = self.formula.place.dtype
        return Vectors(own, part.of(base), dtype, self.stored, self.sources)

    def _unfinite(self, models: Sequence[Tensor], base: Tensor) -> str:
        """Whose NaN or infinities they are."""
        pairs = zip(self.sources, [base, *models], strict=True)
        found = (name for name, tensor in pairs if not torch.isfinite(tensor).all())
        return next(found, "its merged task vector")


class _Within:
    """Errors in terms of the tensor, and of the part of it."""

    def __init__(self, name: str, part: Part) -> None:
        self._name = name
        self._part = f" ({part.label})" if part.label else ""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, RunError):
            called = f"tensor {self._name}" if self._name else "the array"
            message = str(error)
            if isinstance(error, NotFiniteError):
                message = error.of_tensor(self._name)
            raise RunError(f"{called}{self._part}: {message}") from error


def _summed(parameters: Parameters, models: int) -> list[float]:
    """The weights with which a method sums task vectors, for what rounding adds to the sum."""
    weights = list(parameters.get("weight", [1.0] * models))
    total = sum(weights)
    divides = "weight" not in parameters or parameters.get("normalize", True)
    if divides and abs(total) > 1e-8:
        weights = [weight / total for weight in weights]
    if "density" in parameters and parameters.get("rescale", "none") != "none":
        # It drops elements, and makes up for them.
        pairs = zip(weights, parameters["density"], strict=True)
        weights = [w / math.sqrt(density) if density > 0 else w for w, density in pairs]
    return weights
