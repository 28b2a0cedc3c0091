"""Can a study be run on a family? What is missing or does not fit, before anything is run.

Nothing is downloaded: models of the hub that are not in its cache are counted, and looked at when
they are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergecore._mergecore import free_space
from mergecore.diagnose import geometry
from mergecore.errors import MergecoreError
from mergecore.models import hub
from mergecore.models.reference import split
from mergecore.study import forecast, running, spec
from mergecore.study.spec import Configuration
from mergecore.study.study import Study


@dataclass
class Check:
    """What was found out."""

    configurations: int = 0
    models: int = 0
    away: int = 0
    """Models that are not here."""
    missing: list[str] = field(default_factory=list)
    """Models and files that are not here, and how they are come by."""
    problems: list[str] = field(default_factory=list)
    """What does not fit."""
    notes: list[str] = field(default_factory=list)
    kinship: list[str] = field(default_factory=list)
    """How far each model is from the base that it is merged on."""
    disk: int = 0
    """Bytes that merged weights take at a time."""
    free: int = 0
    memory: int = 0
    """Bytes that a merge takes."""


def check(asked: Study) -> Check:
    """Looks at every model that a study needs.

    Raises:
        RecipeError: The study or the family is wrong.
    """
    found = Check(free=free_space(str(Path().absolute())))
    configurations: list[Configuration] = []
    files: list[str] = []
    references: list[str] = []
    for name in asked.parts:
        part = running.ready(asked, name)
        sweep = spec.parse(part.sweep, f"{asked.name}: {name}")
        configurations += sweep.configurations
        found.configurations += len(sweep.configurations)
        references += [sweep.rewards.model] if sweep.rewards else []
        files += _files(part.sweep["stages"])
        files += [m["mergeability"]["probe"] for m in part.measures if "mergeability" in m]
    for configuration in configurations:
        references += [configuration.model] if configuration.model else configuration.parents
    wanted = dict.fromkeys(part for r in references for part in split(r) if part is not None)
    found.models = len(wanted)
    _look(found, asked, wanted, files)
    for base, models in _families(configurations):
        if all(map(_is_here, [base, *models])):
            _compare(found, base, models)
        else:
            gone = [model for model in [base, *models] if not _is_here(model)]
            found.notes.append(f"not compared with {base}, as {gone[0]} is not here")
    for configuration in configurations:
        if not configuration.recipe or not all(_is_here(p) for p in configuration.parents):
            continue
        try:
            _, writes, memory = forecast.planned(configuration)
        except MergecoreError as error:
            found.problems.append(f"{configuration.name}: {error}")
            continue
        found.disk, found.memory = max(found.disk, writes), max(found.memory, memory)
    if found.disk > found.free:
        found.problems.append(f"disk: {found.disk:,} bytes at a time, and {found.free:,} are free")
    return found


def _look(found: Check, asked: Study, wanted: Mapping[str, None], files: list[str]) -> None:
    """Who is not here: models of the hub will be fetched, others must be made."""
    away = [reference for reference in wanted if not _is_here(reference)]
    found.away = len(away)
    fetched = [reference for reference in away if hub.is_hub_id(reference)]
    made = [reference for reference in away if reference not in fetched]
    if fetched:
        found.missing.append(f"{len(fetched)} models are to be fetched: {', '.join(fetched)}")
    gone = [file for file in dict.fromkeys(files) if not Path(file).expanduser().exists()]
    how = f": {asked.made_by} makes them" if asked.made_by else ""
    if made:
        found.missing.append(f"{len(made)} models are not here{how}: {', '.join(made)}")
    if gone:
        found.missing.append(f"{len(gone)} files are not here{how}: {', '.join(gone)}")


def _is_here(reference: str) -> bool:
    """Whether a model, and the adapter on it, need not be fetched."""
    model, adapter = split(reference)
    return hub.is_here(model) and (adapter is None or hub.is_here(adapter, "adapter_config.json"))


def _files(stages: Mapping[str, Any]) -> Iterator[str]:
    """Files of prompts and rows that the stages read."""
    prompts = stages.get("generate", {}).get("prompts")
    if prompts and "/" in prompts:
        yield prompts
    yield from stages.get("tasks", {}).get("data", {}).values()


def _families(configurations: list[Configuration]) -> Iterator[tuple[str, list[str]]]:
    """Each base, and all models that are merged on it."""
    found: dict[str, dict[str, None]] = {}
    for configuration in configurations:
        for document in configuration.recipe:
            base = document.get("base_model")
            if document["merge_method"] == "slerp" or not isinstance(base, str):
                continue
            models = (entry.get("model") for entry in document.get("models", []))
            named = [m for m in models if isinstance(m, str) and split(m)[1] is None]
            found.setdefault(base, {}).update(dict.fromkeys(m for m in named if m != base))
    yield from ((base, list(models)) for base, models in found.items() if models)


def _compare(found: Check, base: str, models: list[str]) -> None:
    try:
        compared = geometry.compare(models, base)
    except MergecoreError as error:
        found.problems.append(f"{base}: {error}")
        return
    for model, kin in zip(models, compared.kinship, strict=True):
        found.kinship.append(f"{model} {kin.in_words()}")
    found.notes += [conflict.in_words() for conflict in compared.conflicts]
