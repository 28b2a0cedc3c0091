"""One matrix, in memory: mergecore and the authors' SVDs in turn, on as many threads."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

import mergecore
import published
import task_vectors
from agreement import DisagreementError
from figures import megabytes, print_table, seconds
from gemm import of_peak, operations
from lap import Lap, lap
from llama import Floats
from task_vectors import Matrices
from workspace import say

_AGREE = 5e-4
"""‖Δ − Δ'‖ / ‖Δ'‖ that float32 SVDs are allowed. TSV-Merge of two models is the farthest off, as it
cuts where neighbouring singular values are close: 1.3e-5 at 256 x 700, 6e-5 at 2048 x 5632."""
_SEEN = 1e-6
"""Of the largest singular value: of two that are nearer to each other float32 keeps either, and
TSV-Merge, which cuts between them, differs by as much as they have of the whole: 4e-2 was seen at
4096 x 14336, where they are 2e-7 apart."""
_UNSEEN = 0.1
_EXACT = 1e-5
"""The same of float64 SVDs; 4e-6 was seen, as float32 holds the base and its change as one."""


@dataclass(frozen=True)
class Contest:
    """A merge that both can do."""

    cost: str
    ours: Callable[[Sequence[Floats], Floats], Floats]
    theirs: Callable[[Sequence[Tensor], Tensor], Tensor]


@dataclass
class Figures:
    """What was measured of a method; the runs in their order."""

    operations: float
    answer: str = ""
    ours: list[Lap] = field(default_factory=list)
    theirs: list[Lap] = field(default_factory=list)
    counted: float | None = None
    """Seconds of torch, where it was not run."""

    def torch_seconds(self) -> float:
        return self.counted or statistics.median(lap.seconds for lap in self.theirs)


@dataclass(frozen=True)
class Bench:
    """What is to be measured."""

    rows: int
    columns: int
    runs: int
    most_svds: int
    """Of more models TSV-Merge by torch is counted, not run."""
    exact: bool
    """Whether answers are compared with float64 SVDs, too."""
    peak: float

    def run(self, models: Sequence[int]) -> None:
        """Measures with each number of models, and prints what was found.

        Raises:
            DisagreementError: mergecore's change of the base is not that of the authors.
        """
        figures: dict[int, dict[str, Figures]] = {}
        for tunes in sorted(models):
            figures[tunes] = self._measure(tunes, figures)
        print(f"\none float32 matrix of {self.rows} x {self.columns}")
        print_table(_table(figures, self.peak))
        print("\nanswers: the distance of two changes of the base, relatively")
        for tunes, of in figures.items():
            for name, those in of.items():
                print(f"  {_title(name, tunes):20}{those.answer}")

    def _measure(self, tunes: int, before: Mapping[int, dict[str, Figures]]) -> dict[str, Figures]:
        say(f"making a matrix of {self.rows} x {self.columns} and {tunes} fine-tunes")
        matrices = task_vectors.make(self.rows, self.columns, tunes)
        figures = {}
        for name, contest in _CONTESTS.items():
            work = operations(contest.cost, matrices.short, matrices.long, tunes)
            figures[name] = Figures(work)
            if name == "tsv" and tunes > self.most_svds:
                figures[name].answer = self._answer_of_a_quarter(name, tunes)
                figures[name].counted = _counted(matrices, before)
        for number in range(self.runs):
            for name, of in figures.items():
                self._round(name, of, matrices)
                words = f"mergecore {of.ours[-1].seconds:.2f} s"
                words += f", torch {of.theirs[-1].seconds:.2f} s" if of.theirs else ""
                say(f"round {number + 1} of {self.runs}: {_title(name, tunes)}: {words}")
        return figures

    def _round(self, name: str, of: Figures, matrices: Matrices) -> None:
        contest = _CONTESTS[name]
        ours, took = lap(lambda: contest.ours(matrices.tunes, matrices.base))
        of.ours.append(took)
        if of.counted is None:
            theirs, took = lap(lambda: _by_torch(contest, matrices))
            of.theirs.append(took)
            of.answer = of.answer or self._answer(name, matrices, ours, theirs)

    def _answer_of_a_quarter(self, name: str, tunes: int) -> str:
        small = task_vectors.make(self.rows // 4, self.columns // 4, tunes)
        contest = _CONTESTS[name]
        ours, theirs = contest.ours(small.tunes, small.base), _by_torch(contest, small)
        size = " x ".join(map(str, small.base.shape))
        return f"{self._answer(name, small, ours, theirs)} (of {size})"

    def _answer(self, name: str, matrices: Matrices, ours: Floats, theirs: Floats) -> str:
        """Compares changes, the noise of storage included: SVDs know all directions here."""
        base = torch.from_numpy(matrices.base).double()
        ours_wide, theirs_wide = (torch.from_numpy(x).double() for x in (ours, theirs))
        off = _distance(ours_wide, theirs_wide, base)
        words = f"{off:.1e} from torch's float32 SVD"
        if off > _AGREE and name == "tsv" and (gap := _gap_at_the_cut(matrices)) < _SEEN:
            _demand(off <= _UNSEEN, f"{name}: {words}")
            words += f", which does not see the gap of {gap:.0e} σ₁ at the cut"
            if not self.exact:
                words += f"; {self._answer_of_a_quarter(name, len(matrices.tunes))}"
        else:
            _demand(off <= _AGREE, f"{name}: {words}")
        if self.exact:
            models = [torch.from_numpy(tune).double() for tune in matrices.tunes]
            exact = _CONTESTS[name].theirs(models, base)
            off, other = (_distance(x, exact, base) for x in (ours_wide, theirs_wide))
            words += f"; from its float64 SVD {off:.1e}, where float32's is {other:.1e} off"
            _demand(off <= _EXACT, f"{name}: {words}")
        return words


def _gap_at_the_cut(matrices: Matrices) -> float:
    """How far apart, as a share of the largest, the singular values are between which it cuts."""
    kept = matrices.short // len(matrices.tunes)
    gaps = []
    for tune in matrices.tunes:
        change = torch.from_numpy(tune - matrices.base).double()
        change = change if change.shape[0] <= change.shape[1] else change.T
        sigma = torch.linalg.eigvalsh(change @ change.T).clamp_min(0).sqrt().flip(0)
        gaps.append(float((sigma[kept - 1] - sigma[kept]) / sigma[0]))
    return min(gaps)


def _distance(a: Tensor, b: Tensor, base: Tensor) -> float:
    """‖Δ − Δ'‖ / ‖Δ'‖, of models."""
    return float(torch.linalg.norm(a - b) / torch.linalg.norm(b - base))


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise DisagreementError(message)


def _by_torch(contest: Contest, matrices: Matrices) -> Floats:
    models = [torch.from_numpy(tune) for tune in matrices.tunes]
    merged: Floats = contest.theirs(models, torch.from_numpy(matrices.base)).numpy()
    return merged


def _counted(matrices: Matrices, before: Mapping[int, dict[str, Figures]]) -> float:
    """Of TSV-Merge by torch: what it took with fewer models, and one SVD for each of the others."""
    fewer = max(tunes for tunes, of in before.items() if of["tsv"].theirs)
    change = torch.from_numpy(matrices.tunes[-1] - matrices.base)
    _, one = lap(lambda: published.svd(change))
    say(f"torch's SVD of one task vector: {one.seconds:.2f} s")
    more = len(matrices.tunes) - fewer
    return before[fewer]["tsv"].torch_seconds() + more * one.seconds


def _contests() -> dict[str, Contest]:
    methods, boost = mergecore.methods(), mergecore.modifiers()["boost"]
    modifiers = [{"boost": {"beta": 0.2, "matrices": "linear"}}]

    def boosted(models: Sequence[Floats], base: Floats) -> Floats:
        merged: Floats = mergecore.task_arithmetic(models, base, modifiers=modifiers)
        return merged

    return {
        "iso_c": Contest(methods["iso_c"].cost, mergecore.iso_c, published.iso_c),
        "boost": Contest(boost.cost, boosted, published.boost),
        "tsv": Contest(methods["tsv"].cost, mergecore.tsv, published.tsv),
    }


_CONTESTS = _contests()


def _table(figures: Mapping[int, Mapping[str, Figures]], peak: float) -> list[list[str]]:
    heads = ["method, models", "mergecore s", "GFLOP/s", "of peak", "beside MB"]
    rows = [[*heads, "torch s", "beside MB", "ratio"]]
    for tunes, methods in figures.items():
        for name, of in methods.items():
            ours, torchs = [lap.seconds for lap in of.ours], [lap.seconds for lap in of.theirs]
            rows.append(
                [
                    _title(name, tunes),
                    seconds(ours),
                    *of_peak(of.operations, ours, peak),
                    _beside(of.ours),
                    seconds(torchs) if torchs else f"{of.torch_seconds():.2f} counted",
                    _beside(of.theirs),
                    f"{of.torch_seconds() / statistics.median(ours):.1f}x",
                ]
            )
    return rows


def _title(name: str, tunes: int) -> str:
    return f"{name}, {tunes}"


def _beside(laps: Sequence[Lap]) -> str:
    most = [lap.beside_bytes for lap in laps if lap.beside_bytes is not None]
    return f"{megabytes(max(most))}" if most else ""
