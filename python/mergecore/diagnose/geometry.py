"""How do models lie to their base and to each other? One pass over all weights, in flat memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mergecore.diagnose import configs, kinship, origin, placement, reading
from mergecore.diagnose.configs import Conflict
from mergecore.diagnose.figures import Figures, listed, mean_cosine
from mergecore.diagnose.kinship import Kinship
from mergecore.diagnose.placement import Placement
from mergecore.diagnose.reading import Reading
from mergecore.errors import RecipeError
from mergecore.models import hub
from mergecore.planning import Progress

PathLike: TypeAlias = str | os.PathLike[str]

SAFE, FAILING = 50.0, 100.0
"""‖θ − θ₀‖ of merges of 3 to 8 B parameters below which they held their quality, and above which
they lost it (Hitit et al., arXiv:2511.21437, figure 4)."""
_STUDIED = 8e9
"""Parameters of the largest models there: a distance grows with the root of their number."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of all models."""

    name: str
    shape: tuple[int, ...]
    stack: str | None
    """Of numbered layers: `model.layers`."""
    layer: int | None
    kind: str
    """The name within a layer, or without one the whole: `self_attn.q_proj`."""
    figures: Figures


@dataclass(frozen=True)
class Geometry:
    """What `compare` has found. Arrays have one row a model, in the order of `models`."""

    base: str
    models: list[str]
    overall: Figures
    tensors: list[Tensor]
    kinship: list[Kinship]
    conflicts: list[Conflict]
    """Settings in which the configs of base and models differ."""
    placements: list[Placement]
    """Where those models lie that are merges of others here."""
    notes: list[str]

    @property
    def layers(self) -> dict[tuple[str, int], Figures]:
        """By stack and number, in order; tensors outside of layers are in none."""
        numbered = [tensor for tensor in self.tensors if tensor.layer is not None]
        found = _grouped((((t.stack or ""), t.layer or 0), t.figures) for t in numbered)
        return dict(sorted(found.items()))

    @property
    def kinds(self) -> dict[str, Figures]:
        """By kind of module over all layers, in the order of the files."""
        return _grouped((tensor.kind, tensor.figures) for tensor in self.tensors)

    @property
    def mean_cosine(self) -> Any:
        """The mean over tensors of cos(δᵢ, δⱼ), N × N; `overall.cosine` is that of the whole."""
        return mean_cosine(tensor.figures for tensor in self.tensors)

    @property
    def inputs(self) -> list[int]:
        """The numbers of the models that are no merges of others here (all, if all are)."""
        merges = {place.merge for place in self.placements}
        inputs = [i for i, model in enumerate(self.models) if model not in merges]
        return inputs or list(range(len(self.models)))

    def distance_of_sum(self) -> float:
        """‖Σδᵢ‖ of the inputs, merges left out."""
        return self.distance([float(i in self.inputs) for i in range(len(self.models))])

    def distance(self, weights: Sequence[float]) -> float:
        """‖Σ wᵢδᵢ‖: how far from the base a linear merge with these weights would be."""
        return self.overall.length(weights)

    def as_studied(self, distance: float) -> float:
        """A distance as it would be, weight for weight, in a model of 8 B parameters."""
        return float(distance * (_STUDIED / max(self.overall.elements, 1)) ** 0.5)

    def as_json(self, pairs: bool = False) -> dict[str, Any]:
        """One object with all figures; lists for arrays, None for what has no value.

        Args:
            pairs: Of each tensor tell what it has of every pair, too: N² numbers each.
        """
        sum_ = self.distance_of_sum()
        mean = sum_ / len(self.inputs)
        return {
            "base": self.base,
            "models": self.models,
            "overall": {**self.overall.as_json(), "mean_cosine": listed(self.mean_cosine)},
            "merged": listed(
                {
                    "mean": {"distance": mean, "as_8b": self.as_studied(mean)},
                    "sum": {"distance": sum_, "as_8b": self.as_studied(sum_)},
                }
            ),
            "kinship": [kin.as_json() for kin in self.kinship],
            "conflicts": [conflict.as_json() for conflict in self.conflicts],
            "placements": [place.as_json() for place in self.placements],
            "layers": [
                {"stack": stack, "layer": number, **figures.as_json()}
                for (stack, number), figures in self.layers.items()
            ],
            "kinds": [{"kind": kind, **f.as_json()} for kind, f in self.kinds.items()],
            "tensors": [
                {"name": t.name, "shape": list(t.shape), **t.figures.as_json(pairs)}
                for t in self.tensors
            ],
            "notes": self.notes,
        }


def compare(
    models: Sequence[PathLike],
    base: PathLike | None = None,
    *,
    ignore: Sequence[str] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Geometry:
    """Compares models with their base and with each other: one pass over all weights.

    A merge that mergecore has made, given without its parents, is compared with them, if they are
    still where they were.

    Args:
        models: Folders, weights files, hub ids or `model+adapter`, as `merge` takes them.
        base: What they were fine-tuned from; if left out, what their cards and configs name, or
            what the merge among them was made from.
        ignore: Globs of tensor names to pass over.
        threads: How many threads work; all cores if None.
        progress: Called about ten times a second with the bytes done and the bytes in all.

    Returns:
        Norms, angles and conflicts, of every tensor, layer, kind of module and of the whole; what
        the distances say of the models' descent; and what their configs contradict.

    Raises:
        RecipeError: No base is named, or a pattern matches nothing.
        ModelNotFoundError: A model is not to be had.
        ModelError: A model is malformed, or does not fit the others.
    """
    found = reading.read(models, base, ignore=ignore, threads=threads, progress=progress)
    return of_reading(found)


def of_reading(found: Reading) -> Geometry:
    """What follows from the sums.

    Raises:
        RecipeError: There are none.
    """
    summary, notes = found.summary, list(found.notes)
    names: list[str] = list(summary["models"])
    tensors = [_tensor(told) for told in found.tensors]
    if not tensors:
        raise RecipeError("there are no floating-point tensors to compare")
    overall = Figures.total(tensor.figures for tensor in tensors)
    shapes = {tensor.name: (tensor.shape, tensor.figures) for tensor in tensors}
    places = {name: hub.locate_both(name, quiet=True)[0] for name in [summary["base"], *names]}
    placements = list(_placements(names, overall, notes))
    return Geometry(
        base=summary["base"],
        models=names,
        overall=overall,
        tensors=tensors,
        kinship=kinship.of_models(shapes),
        conflicts=configs.conflicts(places),
        placements=placements,
        notes=[
            *notes,
            *(note for note in summary["notes"] if note.startswith(("the base is", "the adapter"))),
            *kinship.siblings(names, overall),
        ],
    )


def _placements(names: Sequence[str], figures: Figures, notes: list[str]) -> Iterator[Placement]:
    """Places every model that is a merge of others here; says why one is not."""
    real = [origin.identity(name) for name in names]
    for index, name in enumerate(names):
        made_of = origin.of_model(name)
        if made_of is None or not made_of.parents:
            continue
        wanted = [origin.identity(parent) for parent in made_of.parents]
        parents = [real.index(parent) for parent in wanted if parent in real]
        if made_of.lost:
            notes.append(
                f"{name} is a merge, and is not placed between its parents:"
                f" {', '.join(made_of.lost)} is no longer there"
            )
        elif len(parents) == len(wanted) and index not in parents:
            yield placement.place(names, index, parents, figures)


def _tensor(told: dict[str, Any]) -> Tensor:
    layer = told["layer"]
    name = told["name"].removesuffix(".weight")
    kind = layer["kind"].removesuffix(".weight") if layer else name
    return Tensor(
        name=told["name"],
        shape=tuple(told["shape"]),
        stack=layer["stack"] if layer else None,
        layer=layer["number"] if layer else None,
        kind=kind,
        figures=Figures.of(told),
    )


def _grouped(pairs: Iterable[tuple[Any, Figures]]) -> dict[Any, Figures]:
    groups: dict[Any, list[Figures]] = {}
    for key, figures in pairs:
        groups.setdefault(key, []).append(figures)
    return {key: Figures.total(parts) for key, parts in groups.items()}
