"""Who merges? mergecore, mergekit, and raw I/O, which merges nothing: each a command that is timed.

Both mergers get the same models and the same parameters, except that each rescales DARE its own way
(mergekit by restoring the sum of magnitudes, which takes one more look at a tensor).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mergecore
from llama import Checkpoint
from mergecore import Method

_STOPWATCH = Path(__file__).with_name("stopwatch.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class FailedError(Exception):
    """A command that was timed did not succeed."""


@dataclass(frozen=True)
class Timing:
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Merge:
    """One merge that all contestants can do: a method, with what the registry has by default."""

    method: Method
    base: Checkpoint | None
    models: Sequence[Checkpoint]
    modifiers: Sequence[str] = ()
    """As the command line has them; only mergecore's."""

    @property
    def inputs(self) -> list[Checkpoint]:
        return [*([self.base] if self.base else []), *self.models]

    def number(self, parameter: str) -> float | None:
        """The default of a parameter, or None if the method has no such number."""
        known = self.method.parameter(parameter)
        return float(known.default) if known and isinstance(known.default, int | float) else None


def merges(base: Checkpoint, tunes: Sequence[Checkpoint]) -> dict[str, Merge]:
    """A merge by every registered method: of task vectors, or of as many models as it takes."""
    every = [base, *tunes]
    return {
        method.name: Merge(method, base, tunes[: method.max_models])
        if method.base == "required"
        else Merge(method, None, every[-(method.max_models or len(every)) :])
        for method in mergecore.methods().values()
    }


def by_mergecore(merge: Merge, out: Path) -> Timing:
    """Merges with the mergecore of this Python, as its command does; it syncs what it writes."""
    return timed(_mergecore(merge, out))


def planned_memory(merge: Merge, out: Path) -> int:
    """The bytes that mergecore says beforehand it will take."""
    command = [*_mergecore(merge, out), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise FailedError(f"{' '.join(command)} failed: {done.stderr}")
    planned: int = json.loads(done.stdout)["memory_bytes"]
    return planned


class Mergekit:
    """mergekit, as its command runs: arithmetic in float32, rounded to bf16; it syncs nothing."""

    def __init__(self, environment: Path) -> None:
        bin_folder = environment / "bin" if environment.is_dir() else environment.parent
        self.command = bin_folder / "mergekit-yaml"
        if not self.command.exists():
            raise FailedError(f"{environment}: no mergekit-yaml in {bin_folder}")

    def __call__(self, merge: Merge, out: Path) -> Timing:
        """Merges into the folder `out`."""
        each = {"weight": 1 / len(merge.models), "density": merge.number("density")}
        shared = {"t": merge.number("t")}
        base = merge.models[0] if merge.method.base == "first" else merge.base
        recipe = {
            "merge_method": merge.method.name,
            "base_model": str(base.folder) if base else None,
            "models": [{"model": m, "parameters": _given(each)} for m in _folders(merge.models)],
            "parameters": _given(shared),
            "dtype": "float32",
            "out_dtype": "bfloat16",
        }
        file = out.with_suffix(".yml")
        file.write_text(json.dumps(_given(recipe)))  # JSON is YAML
        options = ["--no-copy-tokenizer", "--quiet", "--random-seed", "42"]
        try:
            return timed([str(self.command), str(file), str(out), *options])
        finally:
            file.unlink()


@dataclass(frozen=True)
class RawIO:
    """The same bytes moved and not looked at."""

    read: float
    """Seconds of `cat` for all inputs."""
    copy: float
    """Of `cp` for one model."""
    sync: float
    """Of bringing the copy to the disk."""

    def seconds(self, share: float) -> float:
        """For a merge that reads this share of the inputs."""
        return self.read * share + self.copy + self.sync


def raw_io(inputs: Sequence[Checkpoint], copy: Path) -> RawIO:
    """Reads all inputs, copies one, and syncs the copy."""
    files = [str(file) for model in inputs for file in model.files()]
    read = timed(["sh", "-c", 'cat "$@" > /dev/null', "sh", *files])
    copied = timed(["cp", *map(str, inputs[0].files()), str(copy)])
    synced = timed(["sync", str(copy)])
    copy.unlink()
    return RawIO(read.seconds, copied.seconds, synced.seconds)


def settle(inputs: Sequence[Checkpoint], *leftovers: Path) -> None:
    """Makes the next run's conditions those of the last: nothing to be written, inputs cached."""
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)
        shutil.rmtree(f"{leftover}.partial", ignore_errors=True)  # of a bench that was killed
    os.sync()
    buffer = memoryview(bytearray(1 << 20))
    for model in inputs:
        for file in model.files():
            with file.open("rb", buffering=0) as opened:
                while opened.readinto(buffer):
                    pass


def timed(command: Sequence[str]) -> Timing:
    """Runs a command under the stopwatch.

    Raises:
        FailedError: It failed; its last words are in the message.
    """
    with tempfile.TemporaryFile() as said:
        watched = [sys.executable, "-I", "-S", str(_STOPWATCH), *command]
        environment = {**os.environ, **_OFFLINE}
        done = subprocess.run(watched, stdout=subprocess.PIPE, stderr=said, env=environment)
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
    answer = json.loads(done.stdout) if done.returncode == 0 else {"status": done.returncode}
    if answer.pop("status") != 0:
        raise FailedError(f"{' '.join(command)} failed: {words[-2000:]}")
    return Timing(**answer)


def _mergecore(merge: Merge, out: Path) -> list[str]:
    command = [sys.executable, "-m", "mergecore", "merge", *_folders(merge.models), "--json"]
    command += ["--method", merge.method.name, "--out", str(out)]
    if merge.base:
        command += ["--base", str(merge.base.folder)]
    for modifier in merge.modifiers:
        command += ["--modifier", modifier]
    return command


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _folders(models: Sequence[Checkpoint]) -> list[str]:
    return [str(model.folder) for model in models]
