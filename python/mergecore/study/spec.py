"""What is to be run? A sweep's file, read and checked before anything is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mergecore import recipe as recipes
from mergecore.errors import RecipeError
from mergecore.evaluate.decoding import Decoding
from mergecore.evaluate.tasks import GROUPS
from mergecore.evaluate.tasks.request import Request
from mergecore.models import hub
from mergecore.models.reference import each_part, split
from mergecore.recipe import Recipe
from mergecore.study import grid

_KEYS = (
    *("name", "models", "evaluate", "merges", "stages"),
    *("stream", "keep", "together", "resources"),
)
_BACKENDS = ("auto", "vllm", "transformers")
_LEAST = {"batch_size": 1, "concurrency": 1, "cpus": 0, "gpus": 0, "memory": 1, "limit": 1}
# What of a request for tasks is the sweep's to say.
_OWN = ("model", "out", "overwrite", "quiet")
_TASKS = {f.name: str(f.type) for f in fields(Request) if f.name not in _OWN}


@dataclass(frozen=True)
class Configuration:
    """A merge, or a model as it is."""

    name: str
    point: dict[str, Any] = field(default_factory=dict)
    """The grid's values that it stands for."""
    recipe: list[Recipe] = field(default_factory=list)
    """The documents of its recipe; none for a model as it is."""
    model: str | None = None
    parents: tuple[str, ...] = ()
    """The models that it is made of."""
    tasks: tuple[str, ...] | None = None
    """Those of the sweep's tasks that it is given; None for all."""


@dataclass(frozen=True)
class Loading:
    """By what a model is run."""

    backend: str = "auto"
    dtype: str | None = None
    device: str | None = None
    chat_template: str | None = None
    batch_size: int = 8


@dataclass(frozen=True)
class Answers:
    """What every configuration is asked."""

    prompts: str
    limit: int | None = None
    loading: Loading = field(default_factory=Loading)
    decoding: Decoding = field(default_factory=Decoding)


@dataclass(frozen=True)
class Rewards:
    """Who rewards the answers."""

    model: str
    loading: Loading = field(default_factory=Loading)


@dataclass(frozen=True)
class Judging:
    """Who judges the answers."""

    who: str = "rules"
    model: str | None = None
    url: str | None = None
    prices: str | None = None
    max_cost: float | None = None
    concurrency: int = 8


@dataclass(frozen=True)
class Resources:
    """What one configuration takes of a cluster's node."""

    cpus: float = 1
    gpus: float = 0
    memory: int | None = None
    """Bytes; None for what the merges plan to take."""


@dataclass(frozen=True)
class Sweep:
    """A file's contents."""

    name: str
    configurations: list[Configuration]
    answers: Answers | None = None
    rewards: Rewards | None = None
    judging: Judging | None = None
    tasks: dict[str, Any] | None = None
    """What `mergecore tasks` is told."""
    keep: bool = False
    """Whether merged weights are kept."""
    stream: bool = True
    """Whether merges go into the model's memory, and not into a folder, where they can."""
    together: int = 4
    """How many merges are made in one reading of the models that they share, at the most: fewer
    where they would take more than half of the free disk."""
    resources: Resources = field(default_factory=Resources)


def load(path: str | Path) -> Sweep:
    """Reads a sweep's file, YAML or JSON.

    Raises:
        RecipeError: It cannot be read, or says what cannot be done.
    """
    content = recipes.load_mapping(Path(path))
    return parse(content, str(path))


def parse(content: Mapping[str, Any], where: str) -> Sweep:
    """A sweep from what a file holds.

    Raises:
        RecipeError: It says what cannot be done.
    """
    _check_known(content, _KEYS, where)
    names = _mapping(content.get("models"), f"{where}: models")
    if odd := [n for n, reference in names.items() if not isinstance(reference, str)]:
        raise RecipeError(f"{where}: models: {odd[0]} is no path or hub id")
    evaluated = _list(content.get("evaluate"), f"{where}: evaluate")
    found = [_model(m, names, f"{where}: evaluate") for m in evaluated]
    for number, entry in enumerate(_list(content.get("merges"), f"{where}: merges"), start=1):
        found += _merges(_mapping(entry, f"{where}: merge {number}"), names, number, where)
    if not found:
        raise RecipeError(f"{where}: nothing is to be run: give merges, or models to evaluate")
    _check_names(found, where)
    stages = _mapping(content.get("stages"), f"{where}: stages")
    _check_known(stages, ("generate", "reward", "judge", "tasks"), f"{where}: stages")
    done = _stages(stages, f"{where}: stages")
    _check_tasks(found, done["tasks"], where)
    return Sweep(
        str(content.get("name") or Path(where).stem),
        found,
        **done,
        keep=_flag(content.get("keep", False), f"{where}: keep"),
        stream=_flag(content.get("stream", True), f"{where}: stream"),
        together=_count(content.get("together"), f"{where}: together") or Sweep.together,
        resources=_made(Resources, content.get("resources"), f"{where}: resources"),
    )


def _model(given: Any, names: Mapping[str, str], where: str) -> Configuration:
    reference = each_part(_text(given, where), lambda part: names.get(part, part))
    near = get_close_matches(reference, names, n=1)
    if near and not Path(reference).expanduser().exists() and not hub.is_hub_id(reference):
        raise RecipeError(f'{where}: no model is called {given!r}; did you mean "{near[0]}"?')
    if split(reference)[1] is not None:
        raise RecipeError(f"{where}: {given}: an adapter on a model is not evaluated; merge it")
    return Configuration(str(given), model=reference)


def _merges(
    entry: Mapping[str, Any], names: Mapping[str, str], number: int, where: str
) -> list[Configuration]:
    here = f"{where}: merge {number}"
    _check_known(entry, ("name", "grid", "labels", "recipe", "model", "tasks"), here)
    if ("recipe" in entry) == ("model" in entry):
        raise RecipeError(f"{here}: give a recipe, or the model that is taken as it is")
    template = entry.get("recipe", [])
    documents = template if isinstance(template, list) else [template]
    if "recipe" in entry and not (documents and all(isinstance(d, dict) for d in documents)):
        raise RecipeError(f"{here}: its recipe is a mapping, or a list of documents")
    title = entry.get("name")
    if title is not None and not isinstance(title, str | int | float):
        raise RecipeError(f"{here}: its name is {title!r}; quote it: name: 'ties {{density}}'")
    points = grid.points(entry.get("grid", {}), f"{here}: grid")
    if not points:
        raise RecipeError(f"{here}: its grid has no combination, so nothing is merged")
    said = str((documents, entry.get("model"), entry.get("name")))
    if idle := [name for name in points[0] if not grid.is_used(name, said)]:
        raise RecipeError(f"{here}: its recipe has no {{{idle[0]}}}, a name of its grid")
    labels = _mapping(entry.get("labels"), f"{here}: labels")
    found = []
    for point in ({**labels, **point} for point in points):
        # A title that is nothing but `{name}` becomes the value, which may be a mapping.
        called = grid.text(grid.filled(str(title), point, here)) if title else grid.named(point)
        own = [_listed(grid.filled(document, point, here)) for document in documents]
        tested = _tested(grid.filled(entry.get("tasks"), point, here), f"{here}: tasks")
        if "model" in entry:
            model = _model(grid.filled(entry["model"], point, here), names, f"{here}: model")
            found.append(replace(model, name=called or model.name, point=point, tasks=tested))
            continue
        made_here = {document.get("name") for document in own if len(own) > 1}

        def placed(reference: str, made: Collection[Any] = made_here) -> str:
            return each_part(reference, lambda p: p if p in made else names.get(p, p))

        own = [recipes.with_references(document, placed) for document in own]
        parents = [r for document in own for r in recipes.references_of(document)]
        others = tuple(r for r in dict.fromkeys(parents) if r not in made_here)
        title_or_number = called or f"merge {number}"
        found.append(Configuration(title_or_number, point, own, parents=others, tasks=tested))
    return found


def _tested(given: Any, where: str) -> tuple[str, ...] | None:
    """Names of tasks; a group's may be a list within the list."""
    if given is None:
        return None
    flat = [n for one in _list(given, where) for n in (one if isinstance(one, list) else [one])]
    named = dict.fromkeys(_text(name, where) for name in flat)
    return tuple(part for name in named for part in GROUPS.get(name, (name,)))


def _listed(document: Recipe) -> Recipe:
    """A recipe whose models a grid gave as a list of names, or as a list within the list."""
    models = document.get("models")
    if not isinstance(models, list):
        return document
    flat: list[Any] = []
    for entry in models:
        inner = entry.get("model") if isinstance(entry, dict) else entry
        if isinstance(inner, list):
            # What is said beside a group is said of each of its models.
            own = entry if isinstance(entry, dict) else {}
            flat += [{**own, "model": model} for model in inner]
        else:
            flat.append({"model": entry} if isinstance(entry, str) else entry)
    return {**document, "models": flat}


def _stages(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    answers = rewards = judging = tasks = None
    if "generate" in given:
        here = f"{where}: generate"
        said = _mapping(given["generate"], here)
        parts = [{f.name for f in fields(kind)} for kind in (Loading, Decoding)]
        _check_known(said, {"prompts", "limit", *parts[0], *parts[1]}, here)
        answers = Answers(
            _text(said.get("prompts"), f"{here}: prompts"),
            _count(said.get("limit"), f"{here}: limit"),
            _loading({key: value for key, value in said.items() if key in parts[0]}, here),
            _made(Decoding, {k: value for k, value in said.items() if k in parts[1]}, here),
        )
    if "reward" in given:
        here = f"{where}: reward"
        said = _mapping(given["reward"], here)
        others = {key: value for key, value in said.items() if key != "model"}
        rewards = Rewards(_text(said.get("model"), f"{here}: model"), _loading(others, here))
    if "judge" in given:
        judging = _made(Judging, given["judge"], f"{where}: judge")
        if judging.who not in ("rules", "openai"):
            raise RecipeError(f"{where}: judge: who is rules or openai, not {judging.who!r}")
    if "tasks" in given:
        here = f"{where}: tasks"
        tasks = dict(_mapping(given["tasks"], here))
        _check_known(tasks, _TASKS, here)
        if not _list(tasks.get("names"), f"{here}: names"):
            raise RecipeError(f"{here}: names are the tasks: gsm8k, glue and so on")
        for key, value in tasks.items():
            if not _fits(value, _TASKS[key]):
                raise RecipeError(f"{here}: {key} is {value!r}, and is to be {_TASKS[key]}")
    if answers is None and (odd := [name for name in ("reward", "judge") if name in given]):
        raise RecipeError(f"{where}: {odd[0]} needs answers: add generate, with its prompts")
    return {"answers": answers, "rewards": rewards, "judging": judging, "tasks": tasks}


def _loading(given: Mapping[str, Any], where: str) -> Loading:
    loading: Loading = _made(Loading, given, where)
    if loading.backend not in _BACKENDS:
        raise RecipeError(f"{where}: backend is {' or '.join(_BACKENDS)}, not {loading.backend!r}")
    return loading


def _made(kind: Any, given: Any, where: str) -> Any:
    """A dataclass of what a mapping says."""
    said = _mapping(given, where)
    kinds = {f.name: f.type for f in fields(kind)}
    _check_known(said, kinds, where)
    for key, value in said.items():
        if not _fits(value, str(kinds[key])):
            raise RecipeError(f"{where}: {key} is {value!r}, and is to be {kinds[key]}")
        if (least := _LEAST.get(key)) is not None and value is not None and value < least:
            raise RecipeError(f"{where}: {key} is {value!r}, and is to be {least} or more")
    try:
        return kind(**said)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from error


def _fits(value: Any, kind: str) -> bool:
    """Whether a value is of an annotation like `dict[str, int]` or `float | None`."""
    names = {part.strip().partition("[")[0] for part in kind.split("|")}
    if isinstance(value, int) and not isinstance(value, bool):
        return bool(names & {"int", "float"})
    return ("None" if value is None else type(value).__name__) in names


def _check_known(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in given:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f" ({', '.join(sorted(known))})"
            raise RecipeError(f"{where}: {key!r} is not known{hint}")


def _check_names(found: list[Configuration], where: str) -> None:
    seen = set()
    for configuration in found:
        if configuration.name in seen:
            raise RecipeError(
                f"{where}: two configurations are called {configuration.name!r}; give their merges"
                " names that differ, like 'ties {density}'"
            )
        seen.add(configuration.name)


def _check_tasks(found: list[Configuration], tasks: Mapping[str, Any] | None, where: str) -> None:
    named = tasks["names"] if tasks else []
    known = [part for name in named for part in GROUPS.get(name, (name,))]
    for configuration in found:
        for name in configuration.tasks or ():
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f'; did you mean "{near[0]}"?' if near else f" ({', '.join(known)})"
                raise RecipeError(
                    f"{where}: {configuration.name}: {name!r} is none of the stage's tasks{hint}"
                )


def _mapping(given: Any, where: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise RecipeError(f"{where}: is a mapping")
    return given


def _list(given: Any, where: str) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise RecipeError(f"{where}: is a list")
    return given


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str) or not given:
        raise RecipeError(f"{where}: is missing, or is no text")
    return given


def _count(given: Any, where: str) -> int | None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
        raise RecipeError(f"{where}: is a number, 1 or more")
    return given


def _flag(given: Any, where: str) -> bool:
    if not isinstance(given, bool):
        raise RecipeError(f"{where}: is true or false")
    return given
