"""Did the merge get better, or did it collapse? All stages, for models beside each other."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergecore import __version__
from mergecore.evaluate import generate as generating
from mergecore.evaluate import reward as rewarding
from mergecore.evaluate import rows, sanity, tally, verdicts
from mergecore.evaluate.decoding import Decoding
from mergecore.evaluate.judge.verdict import LABELS
from mergecore.evaluate.rows import Row

Announce = Callable[[str], Any]


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated."""

    reference: str
    folder: Path
    parents: tuple[str, ...] = ()
    """Those of the others that it was merged from, by its manifest."""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its folder in the run."""
        given = Path(self.reference).expanduser()
        if not given.exists():  # of the hub, whose folder is named by its commit
            return self.reference.partition("/")[2].replace("/", "-") or self.folder.name
        place = given.absolute() if given.name not in ("", "..") else given.resolve()
        return place.name if place.is_dir() else place.stem


def subjects(models: Mapping[str, Path]) -> list[Subject]:
    """The models, each once and with those of the others that it was merged from."""
    once: dict[Path, Subject] = {}
    for reference, folder in models.items():
        once.setdefault(folder.resolve(), Subject(reference, folder))
    found = list(once.values())
    names = _names(found)
    by_place = {str(s.folder.resolve()): names[s.reference] for s in found}
    return [
        Subject(s.reference, s.folder, tuple(_parents(s.folder, by_place, names[s.reference])))
        for s in found
    ]


def with_parents(models: Mapping[str, Path]) -> dict[str, Path]:
    """The models, and behind them those that their manifests say they were merged from.

    Parents that are no longer where they were are left out.
    """
    found = dict(models)
    places = {folder.resolve() for folder in models.values()}
    for folder in models.values():
        for place in _inputs(folder):
            if place.is_dir() and place not in places:
                places.add(place)
                found[str(place)] = place
    return found


def evaluate(
    subjects: Sequence[Subject],
    prompts: Sequence[Row],
    out: Path,
    *,
    backend: Callable[[Subject], tuple[Callable[[], Any], dict[str, Any]]],
    decoding: Decoding,
    scorer: tuple[str, Callable[[], Any], dict[str, Any]] | None,
    judge: verdicts.Judge,
    template: str | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    announce: Announce | None = None,
) -> dict[str, Any]:
    """Runs every stage for every model and sums up; what is there already is not made again.

    Args:
        subjects: The models.
        prompts: What they are asked.
        out: The run's folder: `NAME/{responses,rewards,verdicts}.jsonl` for each model,
            metrics.json and results.csv.
        backend: Makes the backend of a model, and says what of it decides the answers.
        decoding: How tokens are chosen.
        scorer: The reward model's name, what makes it, and what of it decides; None for none.
        judge: Who judges.
        template: A chat template for all.
        batch_size: Of the reward model.
        overwrite: Begin anew.
        announce: Is told what is done now.

    Returns:
        What metrics.json holds: for each model its figures, and for each pair of a merge and a
        parent of its the differences.

    Raises:
        ModelError: A model's tokenizer is broken, so that nothing it says can be judged.
        MergecoreError: As the stages say.
    """
    tell = announce or (lambda _: None)
    names = _names(subjects)
    for subject in subjects:
        sanity.check(subject.folder, subject.reference, template)
    for subject in subjects:
        tell(f"{names[subject.reference]}: answers")
        make, about = backend(subject)
        file = out / names[subject.reference] / "responses.jsonl"
        # Named by where it came from in the run, so that rows of two models are told apart.
        asked = (names[subject.reference], prompts, file, make, decoding)
        try:
            generating.generate(*asked, about=about, overwrite=overwrite)
        except generating.UnansweredError as error:
            # One prompt that is too long must not cost the figures of all others.
            tell(f"warning: {names[subject.reference]}: {error}")
    answers = {name: _chosen(out / name / "responses.jsonl", prompts) for name in names.values()}
    rewards: dict[str, list[Row]] = {name: [] for name in answers}
    if scorer is not None:
        model, make_scorer, about = scorer
        loaded = once(make_scorer)
        for name, answered in answers.items():
            tell(f"{name}: rewards")
            file = out / name / "rewards.jsonl"
            rewarding.reward(
                answered,
                model,
                file,
                loaded,
                batch_size=batch_size,
                about=about,
                overwrite=overwrite,
            )
            rewards[name] = _chosen(file, prompts)
    judged = {}
    for name, answered in answers.items():
        tell(f"{name}: verdicts")
        file = out / name / "verdicts.jsonl"
        verdicts.judge_all(answered, file, judge, overwrite=overwrite)
        judged[name] = _chosen(file, prompts)
    metrics = _metrics(subjects, names, answers, rewards, judged)
    metrics["about"] = {
        "mergecore": __version__,
        "prompts": len(prompts),
        "decoding": decoding.as_dict(),
        "reward_model": scorer[0] if scorer else None,
        "judge": judge.about(),
    }
    (out / "metrics.json").write_text(
        json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
    (out / "results.csv").write_text(as_csv(metrics), "utf-8")
    return metrics


def as_csv(metrics: Mapping[str, Any]) -> str:
    """The figures as a table: a row a model, intervals in columns of their own."""
    lines = io.StringIO()
    writer = csv.writer(lines)
    columns = ("reward", "degeneration", "degeneration_of_lowest", "length_capped")
    writer.writerow(
        ["model", "reference", "responses"]
        + [name for column in columns for name in (column, f"{column}_low", f"{column}_high")]
        + [*LABELS, "judged", "errors"]
    )
    for name, model in metrics["models"].items():
        figures = []
        for column in columns:
            value = model[column] or {}
            low, high = value.get("interval") or (None, None)
            figures += [value.get("mean", value.get("rate")), low, high]
        labels = [model["labels"][label] for label in LABELS]
        about = [name, model["reference"], model["responses"]]
        writer.writerow([*about, *figures, *labels, model["judged"], model["errors"]])
    return lines.getvalue()


def _metrics(
    subjects: Sequence[Subject],
    names: Mapping[str, str],
    answers: Mapping[str, list[Row]],
    rewards: Mapping[str, list[Row]],
    judged: Mapping[str, list[Row]],
) -> dict[str, Any]:
    models = {}
    pairs = []
    for subject in subjects:
        name = names[subject.reference]
        figures = tally.tally(answers[name], rewards[name], judged[name])
        models[name] = {
            "reference": subject.reference,
            "parents": list(subject.parents),
            **figures,
        }
        for parent in subject.parents:
            found = tally.compare((rewards[name], judged[name]), (rewards[parent], judged[parent]))
            pairs.append({"model": name, "parent": parent, **found})
    return {"models": models, "comparisons": pairs}


def _chosen(file: Path, prompts: Sequence[Row]) -> list[Row]:
    """The rows of these prompts that there are, in their order."""
    known = rows.by_id(rows.read(file))
    return [known[row["id"]] for row in prompts if row["id"] in known]


def _names(subjects: Sequence[Subject]) -> dict[str, str]:
    names: dict[str, str] = {}
    for subject in subjects:
        name, number = subject.name, 2
        while name in names.values():
            name, number = f"{subject.name}-{number}", number + 1
        names[subject.reference] = name
    return names


def _parents(folder: Path, by_place: Mapping[str, str], own: str) -> list[str]:
    """The others that a merge's manifest names as inputs."""
    found = [by_place[str(place)] for place in _inputs(folder) if str(place) in by_place]
    return [name for name in dict.fromkeys(found) if name != own]


def _inputs(folder: Path) -> list[Path]:
    """Where a merge's manifest says its inputs were; none of what is no merge of ours."""
    try:
        inputs = json.loads((folder / "mergecore.json").read_text("utf-8"))["inputs"]
        return [Path(entry["path"]).resolve() for entry in inputs]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def once(make: Callable[[], Any]) -> Callable[[], Any]:
    """One reward model for all, made when it is first needed."""
    made: list[Any] = []

    def get() -> Any:
        if not made:
            made.append(make())
        return made[0]

    return get
