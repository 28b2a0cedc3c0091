"""What did the user ask for? A recipe file, or arguments, become one recipe.

A recipe here is the plain dict that mergekit's YAML describes. Its schema is the engine's, which
refuses what it does not know; this file only spells arguments as a recipe and YAML as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from mergecore.errors import RecipeError
from mergecore.models.reference import each_part
from mergecore.registry import Method, find, methods

Recipe: TypeAlias = dict[str, Any]
Value: TypeAlias = float | bool | str | Sequence[float] | Mapping[str, Any]
Modifiers: TypeAlias = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""Names, or mappings of one name to its parameters, in the order in which they act; or one."""

SUFFIXES = (".yml", ".yaml", ".json")


def build(
    method: str,
    models: Sequence[str],
    base: str | None = None,
    parameters: Mapping[str, Value | None] | None = None,
    modifiers: Modifiers | None = None,
    **keys: object,
) -> Recipe:
    """Spells a request as a recipe.

    Args:
        method: The name of a merge method; hyphens are as good as underscores.
        models: References of the models, in order.
        base: The reference of the base, if one is given.
        parameters: The method's parameters by name or Python keyword. A parameter that each model
            may have for itself takes one value for all models, or a sequence with one a model. None
            leaves the registry's default.
        modifiers: What acts on the merged change; one may stand for a list of one.
        **keys: Further keys of the recipe (`dtype`, `seed`, `onto`, ...); None leaves one out.

    Raises:
        RecipeError: The method is unknown, or a sequence has the wrong number of values.
    """
    known = find(method)
    if keys.get("onto") is not None and known.base != "required":
        task_vectors = ", ".join(name for name, m in methods().items() if m.base == "required")
        raise RecipeError(
            f"{known.name} merges models, not changes, and cannot extrapolate; use {task_vectors}"
        )
    shared: dict[str, Any] = {}
    each: dict[str, list[Any]] = {}
    inputs = list(models)
    if base is not None and known.base == "joins" and base not in inputs:
        inputs.append(base)  # as mergekit has it: one more input, and the last
    for keyword, value in (parameters or {}).items():
        if value is None:
            continue
        parameter = known.parameter(keyword)
        name = parameter.name if parameter else keyword
        if name in shared or name in each:
            raise RecipeError(f"{name} is given twice")
        if hasattr(value, "tolist"):
            value = value.tolist()  # NumPy's and torch's values, without importing either
        if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or not parameter:
            shared[name] = value
        elif parameter.per_model:
            each[name] = _one_a_model(name, value, inputs, known, base)
        else:
            raise RecipeError(f"{name} takes one value for the whole merge, not {len(value)}")
    listed = inputs if each else list(models)
    recipe: Recipe = {"merge_method": known.name}
    if base is not None:
        recipe["base_model"] = base
    recipe["models"] = [_entry(m, {n: v[i] for n, v in each.items()}) for i, m in enumerate(listed)]
    if shared:
        recipe["parameters"] = shared
    if modifiers:
        alone = isinstance(modifiers, str | Mapping)
        recipe["modifiers"] = [modifiers] if alone else modifiers
    recipe.update((key, value) for key, value in keys.items() if value is not None)
    return recipe


def spelled_out(reference: Any) -> Any:
    """A model reference as text: mergekit also writes one as a mapping of paths and revisions.

    `{model: {path: P, revision: R}, lora: {path: L}}` is `P@R+L`. What is no such mapping comes
    back as it is, for the engine to say what is wrong with it.
    """
    if not isinstance(reference, dict):
        return reference
    parts = [reference.get("model"), reference.get("lora")]
    if set(reference) - {"model", "lora", "override_architecture"} or not parts[0]:
        return reference
    texts = []
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("path"), str):
            revision = part.get("revision")
            texts.append(f"{part['path']}@{revision}" if revision else part["path"])
        elif isinstance(part, str):
            texts.append(part)
    return "+".join(texts)


def load(path: str | Path) -> Recipe:
    """Reads a recipe file, YAML or JSON.

    Model paths in it are relative to the current folder, as mergekit has them; one that is not
    there but beside the recipe is taken from there. In the recipe that lies in a merged model they
    are relative to that folder, as they were written.

    Raises:
        RecipeError: The file cannot be read, or is not a mapping.
    """
    documents = load_all(Path(path))
    if len(documents) > 1:
        raise RecipeError(f"{path}: holds several documents; `mergecore run` takes them")
    return {key: value for key, value in documents[0].items() if key != "name"}


def load_all(path: Path) -> list[Recipe]:
    """Reads every document of a recipe file; several may use each other's `name` as a model.

    Raises:
        RecipeError: As `load` does.
    """
    contents = _contents(path)
    if len(contents) == 1 and isinstance(contents[0], list):
        contents = contents[0]  # as JSON spells several
    if not contents or not all(isinstance(content, dict) for content in contents):
        raise RecipeError(f"{path}: a recipe is a mapping that begins with merge_method: NAME")
    names = [content.get("name") for content in contents if len(contents) > 1]
    written_here = (path.parent / "mergecore.json").is_file()

    def placed(part: str) -> str:
        return part if part in names else _placed(part, path.parent, beside_first=written_here)

    return [
        with_references(content, lambda reference: each_part(reference, placed))
        for content in contents
    ]


def load_mapping(path: Path) -> dict[str, Any]:
    """Reads another file of settings, YAML or JSON, as strictly as a recipe.

    Raises:
        RecipeError: The file cannot be read, or is not one mapping.
    """
    contents = _contents(path)
    if len(contents) != 1 or not isinstance(contents[0], dict):
        raise RecipeError(f"{path}: is to be one mapping of keys to values")
    return contents[0]


def with_references(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """The same recipe with every model reference passed through `change`."""
    changed = _part_with_references(recipe, change)
    for key in ("base_model", "onto", "donor"):
        reference = spelled_out(changed.get(key))
        if isinstance(reference, str):
            changed[key] = change(reference)
    if isinstance(changed.get("modules"), dict):
        changed["modules"] = {
            name: _part_with_references(module, change) if isinstance(module, dict) else module
            for name, module in changed["modules"].items()
        }
    return _tokenizer_with_references(changed, change)


def models_of(recipe: Recipe) -> list[str]:
    """The references of the inputs, each once, in order; a recipe that has none gives none."""
    modules = recipe.get("modules")
    parts = [recipe, *(modules.values() if isinstance(modules, dict) else [])]
    lists = []
    for part in (part for part in parts if isinstance(part, dict)):
        slices = part.get("slices")
        lists.append(part.get("models"))
        if isinstance(slices, list):
            lists += [entry.get("sources") for entry in slices if isinstance(entry, dict)]
    entries = [entry for entries in lists if isinstance(entries, list) for entry in entries]
    named = [entry.get("model") if isinstance(entry, dict) else entry for entry in entries]
    return list(dict.fromkeys(reference for reference in named if isinstance(reference, str)))


def modifiers_of(recipe: Recipe) -> list[dict[str, Any]]:
    """The modifiers of a recipe that the engine has accepted, each with what it is told."""
    entries = recipe.get("modifiers") or []
    told = [{entry: None} if isinstance(entry, str) else entry for entry in entries]
    return [
        {"name": name.replace("-", "_"), "parameters": parameters or {}}
        for entry in told
        for name, parameters in entry.items()
    ]


def references_of(recipe: Recipe) -> list[str]:
    """Every reference of a recipe, each once: its models, its base, `onto` and `donor`."""
    others = [recipe.get(key) for key in ("base_model", "onto", "donor")]
    named = [reference for reference in others if isinstance(reference, str)]
    return list(dict.fromkeys([*named, *models_of(recipe)]))


def to_json(recipe: Recipe) -> str:
    """The recipe as the JSON that the engine takes.

    Numbers that JSON cannot write become the strings `nan`, `inf` and `-inf`, which the engine
    refuses by name.

    Raises:
        RecipeError: A value is a date or the like, which YAML makes of some texts; or the recipe
            contains itself.
    """
    try:
        _check_size(recipe)
        plain = {key: _plain(value, key) for key, value in recipe.items()}
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
    except RecursionError:
        raise RecipeError("the recipe is nested too deeply") from None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        odd = text[max(0, error.start - 40) : error.end + 20]
        raise RecipeError(f"a name is not UTF-8: {odd!r}; rename the file or folder") from error
    return text


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, keys in their order; keys that say nothing are left out."""
    said = {key: value for key, value in recipe.items() if value not in (None, [], {})}
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100)


def _entry(model: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "parameters": parameters} if parameters else {"model": model}


def _part_with_references(part: Recipe, change: Callable[[str], str]) -> Recipe:
    """A recipe, or one of its modules."""
    changed = dict(part)
    if isinstance(changed.get("models"), list):
        changed["models"] = [_entry_with_reference(entry, change) for entry in changed["models"]]
    if isinstance(changed.get("slices"), list):
        changed["slices"] = [_slice_with_references(entry, change) for entry in changed["slices"]]
    return changed


def _entry_with_reference(entry: Any, change: Callable[[str], str]) -> Any:
    if isinstance(entry, str):
        return change(entry)
    reference = spelled_out(entry.get("model")) if isinstance(entry, dict) else None
    if isinstance(reference, str):
        return {**entry, "model": change(reference)}
    return entry  # the engine says what is wrong with it


def _slice_with_references(entry: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(entry, dict):
        return entry
    changed = dict(entry)
    if isinstance(changed.get("sources"), list):
        changed["sources"] = [_entry_with_reference(source, change) for source in entry["sources"]]
    reference = spelled_out(changed.get("base_model"))
    if isinstance(reference, str):
        changed["base_model"] = change(reference)
    return changed


def _tokenizer_with_references(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """The recipe, whose tokenizers come from models with changed names."""

    def source(said: Any) -> Any:
        reference = spelled_out(said)
        if reference in ("union", "base") or not isinstance(reference, str):
            return reference
        return change(reference)

    def token(said: Any) -> Any:
        if not isinstance(said, dict) or said.get("source") is None:
            return said
        whose = said["source"]
        if isinstance(whose, dict) and "kind" in whose:
            if "model" not in whose:
                return said
            return {**said, "source": {**whose, "model": source(whose["model"])}}
        return {**said, "source": source(whose)}

    changed = dict(recipe)
    if changed.get("tokenizer_source") is not None:
        changed["tokenizer_source"] = source(changed["tokenizer_source"])
    tokenizer = changed.get("tokenizer")
    if isinstance(tokenizer, dict):
        tokenizer = dict(tokenizer)
        if tokenizer.get("source") is not None:
            tokenizer["source"] = source(tokenizer["source"])
        if isinstance(tokenizer.get("tokens"), dict):
            tokenizer["tokens"] = {name: token(said) for name, said in tokenizer["tokens"].items()}
        changed["tokenizer"] = tokenizer
    return changed


def _contents(path: Path) -> list[Any]:
    """What the documents of a YAML file hold."""
    try:
        found = list(yaml.load_all(path.read_text("utf-8"), Loader=_StrictLoader))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RecipeError(f"{path}: {reason}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: {_yaml_reason(error)}") from error
    except RecursionError:
        raise RecipeError(f"{path}: is nested too deeply") from None
    return [content for content in found if content is not None]  # a last --- opens nothing


def _one_a_model(
    name: str, values: Sequence[Any], inputs: list[str], method: Method, base: str | None
) -> list[Any]:
    if len(values) == len(inputs):
        return list(values)
    joins = method.base == "joins" and base is not None
    whom = f"{len(inputs)} models" + (", the base among them as the last" if joins else "")
    raise RecipeError(
        f"{name}: {len(values)} values for {whom}; give one for all, or {len(inputs)}"
    )


def _placed(reference: str, folder: Path, *, beside_first: bool) -> str:
    beside = folder / reference
    if Path(reference).expanduser().exists() and not (beside_first and beside.exists()):
        return reference
    return str(beside) if beside.exists() else reference


def _check_size(recipe: Recipe) -> None:
    """A few nested YAML aliases can stand for billions of values."""
    left, waiting = 1_000_000, [iter([recipe])]
    while waiting:
        for value in waiting[-1]:
            left -= 1
            if left < 0:
                raise RecipeError(
                    "the recipe contains itself, or a million values: see its YAML aliases"
                )
            if isinstance(value, Mapping):
                waiting.append(iter(value.values()))
                break
            if isinstance(value, list | tuple):
                waiting.append(iter(value))
                break
        else:
            waiting.pop()


def _plain(value: Any, key: object) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, key) for item in value]
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays, without importing NumPy
        return _plain(value.tolist(), key)
    raise RecipeError(f"{key}: {value} is no number, text, list or mapping; quote it if it is text")


def _yaml_reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "not YAML"
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)


class _StrictLoader(yaml.SafeLoader):
    """YAML whose keys are unique: a key written twice is a slip, and PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f'the key "{key.value}" is given twice', problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
