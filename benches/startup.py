"""How long until something is seen? `--help`, `import mergecore`, and the plan of a large merge.

    python benches/startup.py --small        a model of 4 layers; what CI runs
    python benches/startup.py                70 B × 12: headers only, of files that are all holes

The plan is asserted: its tensors, parameters and bytes are those of the shapes. Whole processes,
medians; the rivals are `python -c pass` and `python -c "import numpy"`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agreement import DisagreementError
from contestants import FailedError, timed
from llama import LARGE, SMALL, Size, header_of
from workspace import workspace

SHARD = 9_900_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the bench; 1 if an answer was wrong."""
    options = _options(arguments)
    size = SMALL if options.small else LARGE
    python = [sys.executable, "-c"]
    commands = {
        "python -c pass": [*python, "pass"],
        "import mergecore": [*python, "import mergecore"],
        "import numpy": [*python, "import numpy"],
        "mergecore --help": [sys.executable, "-m", "mergecore", "--help"],
    }
    try:
        with workspace(options.dir) as folder:
            names = ["base", *(f"tune-{i + 1}" for i in range(options.models))]
            for name in names:
                _hollow(folder / name, size)
            line = ["merge", *(str(folder / n) for n in names[1:]), "--method", "dare-ties"]
            line += ["--base", str(folder / "base"), "--dry-run", "--json"]
            line += ["--out", str(folder / "out")]
            plan = [sys.executable, "-m", "mergecore", *line]
            _check(plan, size, options.models)
            commands[f"plan of {size.parameters / 1e9:.1f} B x {options.models}"] = plan
            for what, command in commands.items():
                runs = [timed(command) for _ in range(options.runs)]
                seconds = statistics.median(run.seconds for run in runs)
                peak = max(run.peak_rss_bytes for run in runs) / 1e6
                print(f"{what:28} {seconds:>6.3f} s {peak:>6.0f} MB")
    except (DisagreementError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _hollow(folder: Path, size: Size) -> None:
    """A model in shards whose files have a header and no bytes on the disk."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(size.config))
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    held = 0
    for name, shape in size.shapes.items():
        count = 2 * math.prod(shape)
        if held + count > SHARD:
            shards.append({})
            held = 0
        shards[-1][name] = shape
        held += count
    names = {}
    for number, shapes in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header = header_of(shapes)
        with (folder / file).open("wb") as opened:
            opened.write(header)
            opened.truncate(len(header) + sum(2 * math.prod(shape) for shape in shapes.values()))
        names |= dict.fromkeys(shapes, file)
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _check(plan: Sequence[str], size: Size, models: int) -> None:
    done = subprocess.run(plan, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(done.stderr.strip())
    told = json.loads(done.stdout)
    whole = 2 * size.parameters
    for key, expected in (
        ("tensors", len(size.shapes)),
        ("parameter_count", size.parameters),
        ("bytes_to_read", whole * (models + 1)),
    ):
        if told[key] != expected:
            raise DisagreementError(f"the plan says {told[key]} {key}, and not {expected}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="4 small layers")
    parser.add_argument("--models", type=int, default=12, metavar="N", help="fine-tunes  [12]")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each  [5]")
    parser.add_argument("--dir", type=Path, help="where  [a temporary folder]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
