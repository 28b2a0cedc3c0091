"""How is a study run? Its parts one after the other, over one store of results.

RUN/PART/ has each part's table; answers, rewards, verdicts and tasks lie in RUN for all of them, so
that a model which several parts look at answers once.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergecore import __version__
from mergecore.errors import MergecoreError, OutputExistsError, RecipeError
from mergecore.evaluate import stage
from mergecore.evaluate.backends import need
from mergecore.study import estimate as estimates
from mergecore.study import measures, spec, study, sweep
from mergecore.study.papers.collapse import replacement
from mergecore.study.study import Part, Study
from mergecore.study.work import in_one_line

FILE = "study.json"
"""What says that a folder is a study's run."""


@dataclass(frozen=True)
class Ran:
    """What a study came to."""

    out: str
    configurations: int
    failed: dict[str, str]
    """Why, by part, or part and name."""
    seconds: float


def run(
    asked: Study,
    out: str | Path,
    *,
    parts: Sequence[str] = (),
    limit: int | None = None,
    engine: str = "local",
    address: str | None = None,
    jobs: int | None = None,
    announce: Callable[[str], Any] | None = None,
    foresee: Callable[[str, estimates.Estimate], Any] | None = None,
) -> Ran:
    """Runs whatever of a study is not there yet.

    Args:
        asked: The study, on a family of models.
        out: The run's folder; the same call goes on after an interruption.
        parts: Which of its parts; all if none is named.
        limit: Only so many prompts, and items of each task.
        engine: As of `sweep.run`, and so are `address` and `jobs`.
        address: The cluster's.
        jobs: Configurations at a time; what the family says, if None.
        announce: Is told what is done now.
        foresee: Is told what each part will take, before it is begun.

    Raises:
        RecipeError: The family's folder is not there.
        MergecoreError: As `sweep.run` and the measures say.
    """
    for package in ("pyarrow", "scipy", "altair"):
        need(package, "report")
    begun = time.perf_counter()
    tell = announce or (lambda _: None)
    place = Path(out).expanduser()
    if asked.made_by and not asked.root.is_dir():
        raise RecipeError(
            f"{asked.root}: the models of {asked.family} are not here; {asked.made_by} makes them,"
            " or --models DIR says where they are"
        )
    for name in parts or asked.parts:
        ready(asked, name)
    chosen = [name for name in asked.parts if not parts or name in parts]  # in the study's order
    failed: dict[str, str] = {}
    count = 0

    def foreseen(name: str) -> Callable[[estimates.Estimate], Any] | None:
        return None if foresee is None else lambda seen: foresee(name, seen)

    def told_of(name: str) -> Callable[[str], Any]:
        return lambda words: tell(f"{name} {words}")

    # What a part that is not run now has left stays.
    told = {entry["name"]: entry for entry in _before(asked, place)}
    for name in chosen:
        try:
            part = ready(asked, name, place)
        except RecipeError as error:  # what it needs could not be found: the others go on
            failed[name] = str(error)
            tell(f"{name}: failed: {error}")
            continue
        tell(f"{name}: {part.about}")
        swept = sweep.run(
            spec.parse(study.limited(part.sweep, limit), f"{asked.name}: {name}"),
            place / name,
            store=place,
            engine=engine,
            address=address,
            jobs=asked.jobs if jobs is None else jobs,
            announce=told_of(name),
            foresee=foreseen(name),
        )
        count += swept.configurations
        failed |= {f"{name}: {who}": why for who, why in swept.failed.items()}
        measured = []
        for wanted in part.measures:
            try:
                measured.append(measures.measure(wanted, place, tell))
            except (MergecoreError, OSError) as error:
                failed[f"{name}: {wanted['of'] or 'measures'}"] = in_one_line(error)
                tell(f"{name}: {wanted['of']}: failed: {in_one_line(error)}")
        told[name] = {
            "name": name, "about": part.about, "configurations": swept.configurations,
            "seconds": told.get(name, {}).get("seconds", 0) + swept.seconds, "measures": measured,
            "limit": limit,
        }  # fmt: skip
        _write(asked, place, [told[n] for n in asked.parts if n in told])
    return Ran(str(out), count, failed, time.perf_counter() - begun)


def ready(asked: Study, name: str, place: Path | None = None) -> Part:
    """A part, with what it needs of those before it.

    Args:
        asked: The study.
        name: Of the part.
        place: The run's folder; without it what the part needs is made up, to count and check.

    Raises:
        RecipeError: There is no such part, or what it needs is not there.
    """
    needs = asked.parts.get(name, {}).get("needs")
    if needs is None:
        return study.part(asked, name)
    if needs != replacement.NAME:
        raise RecipeError(f"{asked.name}: {name}: needs {needs!r}, which nothing finds")
    found = replacement.unchosen(asked) if place is None else replacement.groups(asked, place)
    return study.part(asked, name, {needs: found})


def _before(asked: Study, place: Path) -> list[dict[str, Any]]:
    """The parts that a run of the same study on the same models has left.

    Raises:
        OutputExistsError: The folder is another study's run, or one on other models.
    """
    try:
        found: dict[str, Any] = json.loads((place / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    same = json.loads(json.dumps(asked.written, default=str))
    if (found.get("name"), found.get("values")) != (asked.name, same):
        raise OutputExistsError(
            f"{place}: is a run of {found.get('name')} on other models or with other settings"
            f" ({found.get('family')}); give another --out"
        )
    parts: list[dict[str, Any]] = found["parts"]
    return parts


def _write(asked: Study, place: Path, parts: list[dict[str, Any]]) -> None:
    left_out = ("parts", "root", "written", "jobs")
    about = {key: value for key, value in asdict(asked).items() if key not in left_out}
    about["values"] = asked.written  # places on this machine are nobody else's business
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    content = {"mergecore": __version__, **about, "machine": machine}
    text = json.dumps({**content, "parts": parts}, indent=2, ensure_ascii=False, default=str)
    place.mkdir(parents=True, exist_ok=True)
    stage.replace(place / FILE, (text + "\n").encode())
