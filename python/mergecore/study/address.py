"""What is a result of? A digest of all that decides it: recipe, contents of the inputs, settings.

Two configurations of one address are one result; a result whose address is there is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mergecore import __version__
from mergecore import recipe as recipes
from mergecore.models import hub
from mergecore.models.reference import each_part, split
from mergecore.study.spec import Configuration

_SAMPLES = 64
"""Blocks of a weights file that are looked at."""
_BLOCK = 4096
_WHOLE = 64 * 2**20
_HARNESS = (".yaml", ".yml", ".py")
"""The files of a folder of tasks: a run may lie in it, too."""
_known: dict[tuple[Any, ...], str] = {}
"""Digests of folders as they were."""


def of(*parts: Any) -> str:
    """The address of what these decide."""
    text = json.dumps([__version__, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def of_weights(configuration: Configuration) -> str:
    """The address of a configuration's weights. Names of places are no part of it, contents are.

    Raises:
        MergecoreError: A model is not to be had.
    """
    if configuration.model is not None:
        return of("model", of_reference(configuration.model))
    documents = configuration.recipe
    made = {document.get("name") for document in documents if len(documents) > 1}

    def digest(reference: str) -> str:
        return each_part(reference, lambda part: part if part in made else of_reference(part))

    return of("merge", [recipes.with_references(r, digest) for r in configuration.recipe])


def of_file(path: str | Path, endings: Collection[str] = ()) -> str:
    """Of a whole file, or of all files of a folder (that have one of the endings, if given)."""
    place = Path(path).expanduser()
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    files = [file for file in files if not endings or file.suffix in endings]
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.relative_to(place)} {file.stat().st_size}\n".encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:20]


def of_reference(reference: str) -> str:
    model, adapter = split(reference)
    places = [hub.locate(model, quiet=True)]
    if adapter is not None:
        places.append(hub.locate(adapter, wanted="adapter", quiet=True))
    return "+".join(of_folder(str(place.resolve())) for place in places)


def of_folder(place: str) -> str:
    """A digest of a model's files. Those of more than 64 MB are not read whole (140 GB would take
    minutes): size, time and blocks spread over them stand for them, and for a file in the hub's
    cache its name there, which is a digest itself."""
    path = Path(place)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    state = (place, *((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files))
    if state not in _known:
        _known[state] = _digest(files)
    return _known[state]


def _digest(files: Sequence[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        if file.suffix in (".md", ".lock") or file.name.startswith("."):
            continue
        size = file.stat().st_size
        found.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            if size <= _WHOLE:
                found.update(opened.read())
                continue
            blob = file.resolve()
            if blob.parent.name == "blobs":
                found.update(blob.name.encode())
                continue
            found.update(f"{file.stat().st_mtime_ns}\n".encode())
            for number in range(_SAMPLES):
                opened.seek((size - _BLOCK) * number // (_SAMPLES - 1), os.SEEK_SET)
                found.update(opened.read(_BLOCK))
    return found.hexdigest()[:20]


def settings(said: Mapping[str, Any]) -> dict[str, Any]:
    """Of a stage's settings, those that decide what it finds: not where it runs, nor how fast."""
    idle = {"device", "batch_size", "backend"}
    found = {key: value for key, value in said.items() if key not in idle}
    for key in ("chat_template", "include_path"):
        value = found.get(key)
        if isinstance(value, str) and Path(value).expanduser().exists():
            # What it holds, not what it is called; of the harness's folder only what it reads.
            found[key] = of_file(value, _HARNESS if key == "include_path" else ())
    return found
