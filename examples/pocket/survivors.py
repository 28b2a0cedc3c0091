"""What is left of eight models when they are merged? Task by task, of experts and of adapters.

    python examples/pocket/survivors.py [--family DIR] [--prompts N]

The eight experts are asked alone and merged (linear, ties), by exact answers. The adapters are
asked alone, and in groups of eight in the order of their names merged by ties, by ROUGE-L.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rouge_score.rouge_scorer import RougeScorer
from studies import default_folder

import mergecore
from mergecore.pocket.forward import Model, accuracy
from mergecore.pocket.tasks import TASKS

GROUP = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", type=Path, default=default_folder(), help="where models are")
    parser.add_argument("--prompts", type=int, default=64, help="held-out prompts a task  [64]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _experts(args.family, args.prompts, Path(folder) / "merged")
        _adapters(args.family, args.prompts, Path(folder) / "merged")


def _experts(family: Path, prompts: int, out: Path) -> None:
    found = {
        "base": _exact(family / "base", prompts),
        "alone": [accuracy(family / name, name, n=prompts) for name in TASKS],
    }
    experts = [family / name for name in TASKS]
    for method in ("linear", "ties"):
        base = family / "base" if method == "ties" else None
        mergecore.merge(experts, method, base=base, out=out, overwrite=True)
        found[f"all eight, {method}"] = _exact(out, prompts)
    print("| exact answers | " + " | ".join(TASKS) + " |")
    print("|---" * (len(TASKS) + 1) + "|")
    for name, row in found.items():
        print(f"| {name} | " + " | ".join(f"{x:.0%}" for x in row) + " |", flush=True)


def _exact(folder: Path, prompts: int) -> list[float]:
    model = Model(folder)
    return [accuracy(model, name, n=prompts) for name in TASKS]


def _adapters(family: Path, prompts: int, out: Path) -> None:
    names = sorted(p.name for p in (family / "adapters").iterdir() if not p.name.startswith("."))
    plain = Model(family / "base")
    print("\n| ROUGE-L | group | base | alone | merged with its group |\n" + "|---" * 5 + "|")
    for start in range(0, len(names), GROUP):
        group = names[start : start + GROUP]
        merged = _merged(family, group, out)
        for name in group:
            alone = _merged(family, [name], out)
            scores = [_rouge(m, family, name, prompts) for m in (plain, alone, merged)]
            cells = " | ".join(f"{score:.2f}" for score in scores)
            print(f"| {name} | {start // GROUP + 1} | {cells} |", flush=True)


def _merged(family: Path, names: Sequence[str], out: Path) -> Model:
    base = family / "base"
    models = [f"{base}+{family / 'adapters' / name}" for name in names]
    if len(models) == 1:
        mergecore.merge(models, "linear", out=out, overwrite=True)
    else:
        mergecore.merge(models, "ties", base=base, out=out, overwrite=True)
    return Model(out)


def _rouge(model: Model, family: Path, name: str, prompts: int) -> float:
    scorer = RougeScorer(["rougeL"])
    lines = (family / "data" / "adapters" / f"{name}.jsonl").read_text().splitlines()[:prompts]
    rows = [json.loads(line) for line in lines]
    said = model.complete([row["instruction"] for row in rows])
    return fmean(
        scorer.score(row["reference"], text)["rougeL"].fmeasure
        for row, text in zip(rows, said, strict=True)
    )


if __name__ == "__main__":
    main()
