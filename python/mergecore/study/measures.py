"""What is measured of models as they are? Geometry of their weights, distances of their states."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mergecore.diagnose import geometry, mergeability
from mergecore.diagnose.bounds import Floats
from mergecore.diagnose.figures import listed
from mergecore.evaluate import stage
from mergecore.study import address

CONFLICTS = ("magnitude_change", "sign_change", "conflicting_magnitude_change", "cosine")
"""The four conflict metrics of Cao et al., section 2, as `Figures` calls them."""


@dataclass(frozen=True)
class Measured:
    """What one part has measured of some models, in their order."""

    of: str
    names: list[str]
    conflicts: dict[str, Floats]
    """By metric, N × N; none if weights were not compared."""
    states: mergeability.Mergeability | None

    def place(self, name: str) -> int:
        return self.names.index(name)


def measure(wanted: Mapping[str, Any], store: Path, tell: Callable[[str], Any]) -> dict[str, Any]:
    """Measures what is not there yet.

    Args:
        wanted: `{of, compare: {models, base}, mergeability: {models, probe}}`; models are
            `{name, model}`.
        store: Where results lie.
        tell: Is told what is done now.

    Returns:
        `{of, compare, mergeability}`: names of files in the store, and the models' names.

    Raises:
        MergecoreError: As `compare` and `mergeability` say.
    """
    found: dict[str, Any] = {"of": wanted["of"]}
    for kind, make in (("compare", _compared), ("mergeability", _states)):
        if kind not in wanted:
            continue
        said = wanted[kind]
        models = [entry["model"] for entry in said["models"]]
        inputs = [
            address.of_reference(m) for m in [*models, *([said["base"]] if "base" in said else [])]
        ]
        probe = address.of_file(said["probe"]) if "probe" in said else None
        file = store / "measures" / f"{address.of(kind, inputs, probe)}.json"
        if not file.exists():
            tell(f"{wanted['of']}: {kind}")
            file.parent.mkdir(parents=True, exist_ok=True)
            stage.replace(file, json.dumps(make(said, models), default=str).encode())
        found[kind] = str(file.relative_to(store))
        found["names"] = [str(entry["name"]) for entry in said["models"]]
    return found


def load(told: Mapping[str, Any], store: Path) -> Measured:
    """What `measure` has left."""
    conflicts: dict[str, Floats] = {}
    if "compare" in told:
        content = json.loads((store / told["compare"]).read_text("utf-8"))
        conflicts = {key: np.array(content[key], np.float64) for key in CONFLICTS}
    states = None
    if "mergeability" in told:
        content = json.loads((store / told["mergeability"]).read_text("utf-8"))
        for key in ("distances", "squares"):
            content[key] = np.array(content[key], np.float64)
        states = mergeability.Mergeability(**content)
    return Measured(told["of"], list(told["names"]), conflicts, states)


def _compared(said: Mapping[str, Any], models: list[str]) -> dict[str, Any]:
    overall = geometry.compare(models, said["base"]).overall
    return {key: listed(getattr(overall, key)) for key in CONFLICTS}


def _states(said: Mapping[str, Any], models: list[str]) -> dict[str, Any]:
    found = mergeability.mergeability(models, said["probe"], dtype="float32", batch_size=32)
    return {
        "models": found.models,
        "layer": found.layer,
        "dimension": found.dimension,
        "texts": found.texts,
        "distances": found.distances.tolist(),
        "squares": found.squares.tolist(),
        "notes": found.notes,
    }
