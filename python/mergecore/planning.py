"""What will a merge do? A recipe, its models found and checked against each other, before any
byte is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mergecore import recipe, registry, side_files
from mergecore._mergecore import Opened, Plan, checkpoint, recipe_models
from mergecore.errors import MergecoreError, ModelError, RecipeError
from mergecore.models import hub, lineage
from mergecore.models.reference import split
from mergecore.recipe import Recipe
from mergecore.tokenizer import speech
from mergecore.tokenizer.files import TokenizerFiles
from mergecore.tokenizer.output import source_of

if TYPE_CHECKING:
    from mergecore.cuda.device import Device

Progress: TypeAlias = Callable[[int, int], None]
"""Called about ten times a second with the bytes done and the bytes in all."""

CPU = "cpu"
"""The device that is always there."""

_STAND_IN = "(the base that the models name)"


@dataclass(frozen=True)
class Prepared:
    """A merge that can run: every model is here and they fit together."""

    summary: dict[str, Any]
    """What the engine says of it: the resolved recipe, tensors, bytes, passes, memory, notes."""
    plan: Plan
    donor: Path
    tokenizer: TokenizerFiles
    places: Sequence[Path]
    """Where the models and adapters are."""
    device: Device | None = None
    """Where formulas are worked out, if not on the CPU."""

    def run(
        self,
        out: str | os.PathLike[str],
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Merges into the folder `out` and returns the engine's report, the plan's notes in it."""
        place, files = checked_name(out), self.side_files(out)
        how: dict[str, Any] = {"overwrite": overwrite, "progress": progress}
        return self.told(self.plan.run(place, files, **how, device=self.device))

    def told(self, words: str) -> dict[str, Any]:
        """The engine's report, from its words, with the plan's notes in it."""
        report: dict[str, Any] = json.loads(words)
        for key in ("notes", "warnings"):
            said = report.get(key) or []
            report[key] = [note for note in self.summary[key] if note not in said] + said
        report["notes"] += self.device.notes() if self.device is not None else []
        return report

    def is_made(self, out: str | os.PathLike[str]) -> bool:
        """Whether the folder `out` is what `run` would make of it, by its manifest."""
        return self.plan.is_made(os.fspath(out), self.side_files(out))

    def side_files(self, out: str | os.PathLike[str]) -> list[side_files.SideFile]:
        """What lies beside the weights in the folder `out`.

        Raises:
            ModelError: The donor's files cannot be read.
        """
        with _as_model_errors():
            return side_files.collect(self.donor, self.summary, out, self.tokenizer)


def checked_name(out: str | os.PathLike[str]) -> str:
    """The output's name, which must be text.

    Raises:
        RecipeError: It is not.
    """
    try:
        os.fspath(out).encode()
    except UnicodeEncodeError as error:
        raise RecipeError(f"{out!r}: the name is not UTF-8; choose another --out") from error
    return os.fspath(out)


def prepare(
    request: Recipe,
    *,
    from_file: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    shard_size: int | None = None,
    quiet: bool = True,
    documents: Mapping[str, Path] | None = None,
    opened: Opened | None = None,
    device: str | None = None,
) -> Prepared:
    """Finds a recipe's models and checks that they fit; reads headers only.

    A base that the method needs and the recipe leaves out is the one that the models name. The
    donor is settled too, and both are written into the recipe, so that it says what was run.

    Args:
        request: The recipe.
        from_file: Whether a file holds it; a few defaults are mergekit's then.
        threads: How many threads will work; all cores if None.
        max_memory: The memory that the merge may take, in bytes.
        shard_size: The size of an output shard, in bytes.
        quiet: Show no progress while a model is downloaded.
        documents: Where the merges are that the recipe names as models.
        opened: The models that are open for other recipes: this one's are opened there.
        device: Where formulas are worked out: `cpu`, `cpu-torch`, `cuda` or `cuda:N`; the recipe's
            `device` if None, or else the CPU.

    Raises:
        RecipeError: The recipe is wrong, or there is no such device.
        ModelNotFoundError: A model is not to be had.
        ModelError: A model is malformed, or does not fit the others.
    """
    with _as_model_errors():
        return _prepare(
            *(request, from_file, quiet, documents or {}, opened, device),
            threads=threads,
            max_memory=max_memory,
            shard_size=shard_size,
        )


def outside(request: Recipe, documents: Mapping[str, Path]) -> list[str]:
    """The models that a recipe of a file names and that are no documents of that file.

    The engine checks the recipe for it, and nothing is downloaded. An adapter on a document is told
    as `+adapter`.

    Raises:
        RecipeError: The recipe is wrong.
    """
    request, references = _checked(request, True, documents)
    parts = [reference.partition("+") for reference in references]
    inside = [model in documents for model, _, _ in parts]
    if any(inside) and _lacks_base(request):
        name = request["merge_method"]
        raise RecipeError(f"{name} needs a base, which a document cannot name; give base_model")
    found = zip(references, parts, inside, strict=True)
    return [
        plus + adapter if is_one else reference
        for reference, (_, plus, adapter), is_one in found
        if not is_one or plus
    ]


def locate_lender(request: Recipe, documents: Mapping[str, Path], quiet: bool = True) -> None:
    """Finds the model that a recipe takes only the tokenizer of, if there is one.

    Raises:
        RecipeError: It is a document that is not merged there.
        ModelNotFoundError: It is not to be had.
    """
    source = source_of(request)
    if source in (None, "union", "base") or source in recipe.references_of(request):
        return
    _lender(str(source), documents, quiet)


def locate_outside(references: Sequence[str], quiet: bool) -> list[str]:
    """Where the models and adapters of `outside` are; their headers are read.

    Raises:
        ModelNotFoundError: A model is not to be had.
        ModelError: A model is malformed.
    """
    found = []
    with _as_model_errors():
        for reference in references:
            if reference.startswith("+"):
                found.append(str(hub.locate(reference[1:], wanted="adapter", quiet=quiet)))
                continue
            model, adapter = hub.locate_both(reference, quiet=quiet)
            checkpoint(str(model), None if adapter is None else str(adapter))
            found += [str(place) for place in (model, adapter) if place is not None]
    return found


def _checked(
    request: Recipe, from_file: bool, documents: Mapping[str, Path]
) -> tuple[Recipe, list[str]]:
    """The recipe with one name for one place, and the models that it names.

    The engine checks the whole recipe before anything is downloaded; a base still to be found is
    stood in for, since a recipe without it would be refused.
    """
    request = {key: value for key, value in request.items() if key != "device"}  # not the engine's
    named = dict.fromkeys(recipe.references_of(request))

    def note(reference: str) -> str:
        named[reference] = None  # those of tokens come last: they are called as the models are
        return reference

    request = recipe.with_references(request, note)
    here = {
        name: Path(name).expanduser() for name in named if name.partition("+")[0] not in documents
    }
    request = _spelled_alike(
        request, {name: (path, None) for name, path in here.items() if path.exists()}
    )
    checked = {**request, "base_model": _STAND_IN} if _lacks_base(request) else request
    references = recipe_models(recipe.to_json(checked), from_file)
    return request, [reference for reference in references if reference != _STAND_IN]


def _located(
    reference: str, documents: Mapping[str, Path], quiet: bool
) -> tuple[Path, Path | None]:
    """A document is where it was made; its name wins against a folder of that name."""
    model, plus, adapter = reference.partition("+")
    if model not in documents:
        return hub.locate_both(reference, quiet=quiet)
    return documents[model], hub.locate(adapter, wanted="adapter", quiet=quiet) if plus else None


def _lender(name: str, documents: Mapping[str, Path], quiet: bool) -> Path:
    """Where a model is that only the tokenizer is taken of."""
    if name in documents:
        raise RecipeError(f"the tokenizer of {name} is asked for, a document not merged here")
    return hub.locate(name, wanted="tokenizer", quiet=quiet)


def _prepare(
    request: Recipe,
    from_file: bool,
    quiet: bool,
    documents: Mapping[str, Path],
    opened: Opened | None,
    device: str | None,
    **limits: int | None,
) -> Prepared:
    named = device or request.get("device") or CPU
    request, references = _checked(request, from_file, documents)
    notes: list[str] = []
    places = {reference: _located(reference, documents, quiet) for reference in references}
    if _lacks_base(request):
        models = {model: places[model][0] for model in recipe.models_of(request)}
        base = lineage.common_base(models, request["merge_method"]).reference
        request["base_model"] = base
        places[base] = hub.locate_both(base, quiet=quiet)
        notes.append(f"the base is {base}: the models name it")
    notes += _of_other_models(places)
    request = _spelled_alike(request, places)
    locations = {reference: model for reference, (model, _) in places.items()}
    donor, note = side_files.choose_donor(request, locations)
    request["donor"] = donor
    notes += [note] if note else []
    if not (side_files.folder_of(locations[donor]) / "config.json").is_file():
        notes.append(f"{donor} has no config.json: the output has weights, but is no whole model")
    spoken = speech.of(request, donor, places, lambda name: _lender(name, documents, quiet))
    plan = Plan(
        recipe.to_json(request),
        {reference: str(model) for reference, model in locations.items()},
        adapters={r: str(adapter) for r, (_, adapter) in places.items() if adapter is not None},
        vocabulary=spoken.vocabulary,
        opened=opened,
        from_file=from_file,
        **limits,
    )
    summary = {**json.loads(plan.summary()), "donor": donor}
    worker = None if named == CPU else _worker(named, limits["max_memory"])
    if worker is not None:
        notes += worker.foreseen(summary, json.loads(plan.steps()))
    summary["notes"] = [*notes, *spoken.notes, *summary["notes"]]
    summary["warnings"] = [
        *spoken.warnings, *_of_configs(locations, donor),
        *side_files.of_links(locations[donor]), *summary["warnings"],
    ]  # fmt: skip
    read = [path for place in places.values() for path in place if path is not None]
    return Prepared(summary, plan, locations[donor], spoken.files, read, worker)


def _worker(name: Any, max_memory: int | None) -> Device:
    if not isinstance(name, str) or re.fullmatch(r"cpu-torch|cuda(:\d+)?", name) is None:
        raise RecipeError(f"device {name!r}: it is cpu, cpu-torch, cuda or cuda:N")
    if find_spec("torch") is None:
        raise RecipeError(f"device {name}: torch is not installed: pip install 'mergecore[torch]'")
    from mergecore.cuda.device import Device

    return Device(name, max_memory)


@contextmanager
def _as_model_errors() -> Iterator[None]:
    """What the system refuses before the first byte is the models' fault, not the run's."""
    try:
        yield
    except MergecoreError:
        raise  # some of them are OSErrors, too
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ModelError(f"{where}{(error.strerror or str(error)).lower()}") from error


def _spelled_alike(request: Recipe, places: dict[str, tuple[Path, Path | None]]) -> Recipe:
    """The recipe with one name for one place: `base/` among the models is the base, no model."""
    real = {
        reference: tuple(_identity(path) for path in place if path is not None)
        for reference, place in places.items()
    }
    names: dict[tuple[str, ...], str] = {}
    for reference in [request.get("base_model"), *places]:
        if isinstance(reference, str) and reference in places:
            names.setdefault(real[reference], reference)
    return recipe.with_references(request, lambda name: names[real[name]] if name in real else name)


def _of_configs(locations: Mapping[str, Path], donor: str) -> Iterator[str]:
    """Warnings of what parents were trained with and one config cannot say for all of them."""
    from mergecore.diagnose import configs

    for conflict in configs.conflicts(locations):
        if conflict.what in configs.CALCULATING:
            yield f"{conflict.in_words()}; the output has that of {donor} (donor)"


def _of_other_models(places: dict[str, tuple[Path, Path | None]]) -> Iterator[str]:
    """Notes on adapters that say they are for another model than the one they are put on."""
    for reference, (_, adapter) in places.items():
        named = lineage.named_base(adapter) if adapter is not None else None
        model = lineage.Ancestor(split(reference)[0], reference)
        if not model.is_here:
            model = model._replace(reference=model.reference.split("@")[0])
        # A folder may be a copy of what the hub has: only like is told from like.
        if named is None or not named.found or named.is_here != model.is_here:
            continue
        if named.identity != model.identity:
            yield f"the adapter of {reference} says that it is for {named.reference}"


def _identity(path: Path) -> str:
    """The same text for the same model: a folder's only weights file stands for the folder."""
    whole = path.parent if path.name == "model.safetensors" else path
    return os.path.realpath(whole)


def _lacks_base(request: Recipe) -> bool:
    name = request.get("merge_method")
    if not isinstance(name, str) or request.get("base_model") is not None:
        return False
    try:
        return registry.find(name).base == "required" and bool(recipe.models_of(request))
    except RecipeError:
        return False  # the engine has the better message: it knows the file's other keys
