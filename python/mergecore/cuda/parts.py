"""Of which matrices is a tensor made? What the engine's plan says of it, read from JSON.

Names and the shapes of the tensors beside it decide (the engine's `plan/matrices.rs`); nothing is
guessed here. The form is that of the engine's own `Whole`:

    {"solved": true, "reshaped": [false],
     "units": [{"elements": [0, 98304],
                "parts": [{"label": "q", "width": 256,
                           "rows": {"start": 0, "groups": 1, "count": 256, "stride": 256},
                           "columns": {"start": 0, "groups": 1, "count": 256, "stride": 256}}]}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Steps:
    """`groups` times `count` numbers side by side, `stride` from one group to the next."""

    start: int
    groups: int
    count: int
    stride: int

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return self.groups * self.count

    def indices(self, device: torch.device) -> Tensor:
        """The numbers: int64 of shape (total,)."""
        group = torch.arange(self.groups, device=device) * self.stride
        inside = torch.arange(self.count, device=device)
        return (self.start + group.unsqueeze(1) + inside).view(-1)


@dataclass(frozen=True)
class Part:
    """A matrix within a unit, which is a larger one."""

    label: str
    """Empty for the only one."""
    width: int
    """The unit's columns."""
    rows: Steps
    columns: Steps

    def of(self, unit: Tensor) -> Tensor:
        """This part of a flat unit: (rows, columns), a view where both are side by side."""
        matrix = unit.view(-1, self.width)
        for axis, steps in enumerate((self.rows, self.columns)):
            if steps.groups == 1:
                matrix = matrix.narrow(axis, steps.start, steps.count)
            else:
                matrix = matrix.index_select(axis, steps.indices(unit.device))
        return matrix

    def put(self, unit: Tensor, matrix: Tensor) -> None:
        """Writes the part's numbers into a flat unit."""
        rows, columns = (s.indices(unit.device) for s in (self.rows, self.columns))
        unit.view(-1, self.width)[rows.unsqueeze(1), columns] = matrix


@dataclass(frozen=True)
class Unit:
    """Elements that lie side by side, and may be merged by themselves."""

    elements: range
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Whole:
    """What of a tensor is merged or modified as matrices."""

    units: tuple[Unit, ...]
    solved: bool
    """The method merges the matrices, rather than the elements."""
    reshaped: tuple[bool, ...]
    """Which of the modifiers act on the matrices."""

    @staticmethod
    def of(plan: Mapping[str, Any]) -> Whole:
        """As the engine's plan has it, see above."""
        units = tuple(
            Unit(range(*unit["elements"]), tuple(map(_part, unit["parts"])))
            for unit in plan["units"]
        )
        return Whole(units, plan["solved"], tuple(plan["reshaped"]))

    @staticmethod
    def of_matrix(
        shape: Sequence[int], *, solved: bool, reshaped: Sequence[bool] = ()
    ) -> dict[str, Any]:
        """The plan of a tensor that is one matrix, in the form that `of` takes.

        Args:
            shape: (m, n), neither of them 0.
            solved: Whether the method merges matrices.
            reshaped: One a modifier: whether it acts on this matrix.
        """
        m, n = shape
        rows = {"start": 0, "groups": 1, "count": m, "stride": m}
        columns = {"start": 0, "groups": 1, "count": n, "stride": n}
        part = {"label": "", "width": n, "rows": rows, "columns": columns}
        units = [{"elements": [0, m * n], "parts": [part]}]
        return {"solved": solved, "reshaped": list(reshaped), "units": units}


def _part(part: Mapping[str, Any]) -> Part:
    rows, columns = Steps(**part["rows"]), Steps(**part["columns"])
    return Part(part["label"], part["width"], rows, columns)
