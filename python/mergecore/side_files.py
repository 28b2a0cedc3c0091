"""Which files besides the weights make the output a model, and whose are they?

All come from one of the inputs, the donor, as they are; but config.json is made true of the
output, and the model card and the recipe as run are mergecore's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeAlias

from mergecore import model_card, model_config, recipe
from mergecore.errors import ModelError
from mergecore.recipe import Recipe
from mergecore.tokenizer import chat_template
from mergecore.tokenizer.files import TokenizerFiles, renumbered
from mergecore.tokenizer.output import source_of

SideFile: TypeAlias = tuple[str, bytes | str]
"""A name inside the output, and its bytes or the path of the file to copy."""

RECIPE_AS_RUN = "mergecore_recipe.yml"

_WEIGHTS = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.ggml", "*.h5", "*.onnx"),
    *("*.msgpack", "*.npz", "*.ot", "*.tflite", "*.index.json"),
)
# Files that are true of the donor and would be false of the merge.
_NOT_ITS_OWN = (
    *("README.md", "mergecore.json", RECIPE_AS_RUN, "mergekit_config.yml"),
    *("adapter_config.json", "trainer_state.json", "all_results.json", "train_results.json"),
    *("eval_results.json", "events.out.tfevents*"),
)

_LEFT = ("runs",)  # training logs


def choose_donor(request: Recipe, locations: Mapping[str, Path]) -> tuple[str, str | None]:
    """Decides whose config, tokenizer and side files the output gets.

    The recipe's `donor`; else the model that is extrapolated (`onto`); else the one whose tokenizer
    the recipe asks for; else the base, or without one the first model, unless it has no chat
    template and another model has.

    Args:
        request: The recipe, its base known.
        locations: Where each of its models is.

    Returns:
        The donor's reference, and a note for the summary where the choice may surprise.
    """
    for key in ("donor", "onto"):
        if isinstance(request.get(key), str):
            return request[key], None
    models = recipe.models_of(request)
    first = request.get("base_model") or models[0]
    speaker = first if source_of(request) == "base" else source_of(request)
    if speaker is not None and speaker in locations:
        return speaker, None
    if chat_template.find(folder_of(locations[first])) is None:
        for model in models:
            if chat_template.find(folder_of(locations[model])) is not None:
                whose = f"config, tokenizer and side files are {model}'s"
                return model, f"{whose}: {first} has no chat template"
    return first, None


def folder_of(model: Path) -> Path:
    """A model's folder: itself, or for a weights file the folder that it lies in."""
    return model if model.is_dir() else model.parent


def collect(
    donor: Path,
    summary: Mapping[str, Any],
    out: str | os.PathLike[str],
    tokenizer: TokenizerFiles,
) -> list[SideFile]:
    """Lists every file besides the weights that the output gets.

    Args:
        donor: Where the donor is. A weights file in a folder without config.json is no model's
            folder, and gives nothing.
        summary: The plan's summary: the dtype, layers and ties that the config must state.
        out: Where the output will be; the card refers to a base beside it by a relative path.
        tokenizer: The files that take the place of some of the donor's.

    Returns:
        Names with their bytes, or with the path of the file to copy, sorted by name.

    Raises:
        ModelError: A file of the donor cannot be copied.
    """
    folder = folder_of(donor)
    files: dict[str, bytes | str] = {}
    if donor.is_dir() or (folder / "config.json").is_file():
        names = (name for name in _copied(folder) if not tokenizer.replaces(name))
        files = {name: str(folder / name) for name in names}
    moved = tokenizer.moved
    if "config.json" in files:
        files["config.json"] = model_config.rendered(folder / "config.json", summary, moved)
    if moved is not None and "generation_config.json" in files:
        said = model_config.read(folder / "generation_config.json")
        files["generation_config.json"] = model_config.as_json(renumbered(said, moved))
    files |= tokenizer.files
    place = Path(out)
    files[RECIPE_AS_RUN] = model_card.as_run(summary, place).encode()
    files["README.md"] = model_card.rendered(summary, place).encode()
    return sorted(files.items())


def of_links(donor: Path) -> list[str]:
    """Warns of files that would be copied from elsewhere, and published with the output.

    A repository may hold a link to a file of whoever clones it. The hub's cache is made of links,
    too: those lead to its own `blobs`.
    """
    folder = folder_of(donor)
    if not (donor.is_dir() or (folder / "config.json").is_file()):
        return []
    home = folder.resolve()
    own = [home, *(above / "blobs" for above in [*home.parents][1:3])]
    led = ((name, (folder / name).resolve()) for name in _copied(folder))
    return [
        f"{folder / name} is a link to {place}: what is there becomes part of the output"
        for name, place in sorted(led)
        if not any(place.is_relative_to(owner) for owner in own)
    ]


def _copied(folder: Path) -> Iterator[str]:
    """Names, relative to the folder, of the donor's files that the output keeps."""
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        # A folder with weights in it is another model: a checkpoint, an adapter, another format.
        if inside.parts and any(_is(name, _WEIGHTS) for name in names):
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")) and f not in _LEFT)
        for name in names:
            if not name.startswith(".") and not _is(name, (*_WEIGHTS, *_NOT_ITS_OWN)):
                _check_readable(Path(place, name))
                yield str(inside / name)


def _check_readable(path: Path) -> None:
    """Refuses, before the weights are merged, what could not be copied after it."""
    if not path.exists():
        raise ModelError(f"{path}: the link leads nowhere; restore the file, or delete the link")
    if not path.is_file():
        raise ModelError(f"{path}: is no regular file; move it out of the model's folder")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path}: cannot be read; change its permissions (chmod +r)")


def _is(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
