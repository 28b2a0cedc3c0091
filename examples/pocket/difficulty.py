"""Does merging difficulty tell which experts a merge loses? Measured on the pocket family.

    python examples/pocket/difficulty.py --family DIR [--prompts N]

DIR holds the base and its eight task experts, as train.py makes them. Hidden states and weights are
compared first; then all eight are merged, by several methods, and every two of them, and each merge
is asked the held-out prompts of its tasks. Printed are the scores beside the losses, and how strong
and how likely by chance their correlation is: over the tasks by Pearson and Spearman, over the
pairs, which share models, by a Mantel test that permutes the models. Whatever comes out is printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import mergecore
from mergecore.diagnose import association
from mergecore.pocket import tasks
from mergecore.pocket.forward import Model, accuracy
from mergecore.pocket.tasks import TASKS

NAMES = tuple(TASKS)
PROBES = 5
"""Texts of each task whose hidden states are compared, as many as in the study."""
METHODS: dict[str, dict[str, float]] = {
    "linear": {},
    "task_arithmetic": {"lambda_": 2.0},
    "ties": {},
    "dare_ties": {},
}
PAIRED = "task_arithmetic"
METRICS = ("magnitude_change", "sign_change", "conflicting_magnitude_change", "cosine")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", type=Path, required=True, help="where base and experts are")
    parser.add_argument("--prompts", type=int, default=200, help="held-out prompts a task  [200]")
    options = parser.parse_args()
    missing = [n for n in ("base", *NAMES) if not (options.family / n / "config.json").exists()]
    if missing:
        only = ",".join(missing)
        parser.error(f"{', '.join(missing)} missing: train.py --out {options.family} --only {only}")
    with tempfile.TemporaryDirectory() as folder:
        _run(options.family, options.prompts, Path(folder))


def _run(family: Path, prompts: int, folder: Path) -> None:
    experts = [family / name for name in NAMES]
    found = mergecore.mergeability(experts, _probes(folder), dtype="float32")
    geometry = mergecore.compare(experts, family / "base")
    tuned = {name: _right(family / name, [name], prompts)[name] for name in NAMES}

    losses = {}
    for method, parameters in METHODS.items():
        merged = _right(_merge(experts, method, parameters, family, folder), NAMES, prompts)
        losses[method] = _losses(merged, tuned, NAMES)
    print("MDS and merging loss (eq. 1, in %) of eight experts merged\n")
    print(_row("task", "MDS", "expert", *METHODS, "mean"))
    mean = np.mean(list(losses.values()), axis=0)
    for i in np.argsort(-found.difficulty):
        each = [f"{losses[method][i]:.1f}" for method in METHODS]
        print(
            _row(
                NAMES[i],
                f"{found.difficulty[i]:.2f}",
                f"{tuned[NAMES[i]]:.0%}",
                *each,
                f"{mean[i]:.1f}",
            )
        )
    print("\nMDS against loss over the eight tasks\n")
    print(_row("loss by", "Pearson r", "p", "Spearman", "p"))
    for name, loss in [*losses.items(), ("mean", mean)]:
        r, rho = (
            test(found.difficulty, loss) for test in (association.pearson, association.spearman)
        )
        print(
            _row(name, f"{r.statistic:.2f}", f"{r.p:.3f}", f"{rho.statistic:.2f}", f"{rho.p:.3f}")
        )

    pairs = np.zeros((len(NAMES), len(NAMES)))
    for i in range(len(NAMES)):
        for j in range(i + 1, len(NAMES)):
            two = [NAMES[i], NAMES[j]]
            merge = _merge([experts[i], experts[j]], PAIRED, {"lambda_": 1.0}, family, folder)
            loss = _losses(_right(merge, two, prompts), tuned, two)
            pairs[i, j] = pairs[j, i] = loss.mean()
    upper = np.triu_indices(len(NAMES), 1)
    mean_loss = pairs[upper].mean()
    print(f"\nover the {len(upper[0])} pairs, merged by {PAIRED}: mean loss {mean_loss:.1f} %\n")
    print(_row("metric", "Pearson r", "p", "Mantel p"))
    metrics = {"hidden similarity": found.similarity}
    metrics |= {name.replace("_", " "): getattr(geometry.overall, name) for name in METRICS}
    for name, matrix in metrics.items():
        r = association.pearson(matrix[upper], pairs[upper])
        mantel = association.mantel(matrix, pairs)
        print(_row(name, f"{r.statistic:.2f}", f"{r.p:.3f}", f"{mantel.p:.3f}"))


def _probes(folder: Path) -> Path:
    path = folder / "probes.jsonl"
    rows = [
        {"id": f"{name}-{i}", "text": f"{example.prompt} {example.answer}", "task": name}
        for name in NAMES
        for i, example in enumerate(tasks.examples(name, PROBES, "train", seed=1))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _merge(
    models: Sequence[Path], method: str, parameters: dict[str, float], family: Path, folder: Path
) -> Path:
    base = None if method == "linear" else family / "base"
    out = folder / "merged"
    mergecore.merge(models, method, base=base, out=out, overwrite=True, **parameters)
    return out


def _right(folder: Path, names: Sequence[str], prompts: int) -> dict[str, float]:
    """The share of held-out prompts that a model answers right, of each task."""
    model = Model(folder)
    return {name: accuracy(model, name, n=prompts) for name in names}


def _losses(merged: dict[str, float], tuned: dict[str, float], names: Sequence[str]) -> np.ndarray:
    return association.merging_loss([merged[n] for n in names], [tuned[n] for n in names])


def _row(first: str, *others: str) -> str:
    return f"{first:30}" + "".join(f"{cell:>17}" for cell in others)


if __name__ == "__main__":
    main()
