"""Does a wheel hold what it should, and does it work where nothing else is?

    python scripts/check_wheel.py dist/*.whl       a wheel, or several
    python scripts/check_wheel.py dist/*.tar.gz    a source distribution: takes cargo, and minutes

Each is installed with its ordinary dependencies into an environment of its own, outside this
folder, and there `mergecore --help` and `mergecore demo` are run from an empty folder. Prints the
figures; status 1 at the first thing that is not so. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from fnmatch import fnmatch
from pathlib import Path

MOST = 15_000_000  # bytes of a wheel

_IN_EACH = ("*/py.typed", "*/pocket/models/base/model.safetensors", "*LICENSE", "*THIRD_PARTY")
_IN_A_WHEEL = (*_IN_EACH, "mergecore/_mergecore*", "*.dist-info/entry_points.txt")
_IN_A_SOURCE = (*_IN_EACH, "*/Cargo.lock", "*/pyproject.toml", "*/rust/mergecore/src/lib.rs")
_IN_NONE = ("*__pycache__*", "*.pyc", "*/target/*", "*/.*", "*.partial*", "*.log", "*.orig")
_NOT_IN_A_WHEEL = (*_IN_NONE, "*tests/*", "*test_*.py", "*benches/*", "*.rs", "*.pdb")


class WrongError(Exception):
    """Something is not as it should be."""


def main() -> int:
    """Checks each, and says what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("packages", nargs="+", type=Path, metavar="WHEEL")
    for package in parser.parse_args().packages:
        try:
            check_content(package)
            check_use(package.resolve())
        except WrongError as error:
            print(f"error: {package.name}: {error}", file=sys.stderr)
            return 1
    return 0


def check_content(package: Path) -> None:
    """Looks at a package from outside: its name, its size, and the names of what is in it."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            names = archive.namelist()
        needed, banned = _IN_A_WHEEL, _NOT_IN_A_WHEEL
        if "-abi3-" not in package.name:
            raise WrongError("is no abi3 wheel: it would serve one version of Python only")
    else:
        with tarfile.open(package) as archive:
            names = archive.getnames()
        needed, banned = _IN_A_SOURCE, _IN_NONE
    size = package.stat().st_size
    if size > MOST:
        raise WrongError(f"{size / 1e6:.1f} MB, and {MOST / 1e6:.0f} are allowed")
    for pattern in needed:
        if not any(fnmatch(name, pattern) for name in names):
            raise WrongError(f"holds no {pattern}")
    odd = [name for name in names if any(fnmatch(name, pattern) for pattern in banned)]
    if odd:
        raise WrongError(f"holds {odd[0]}, which nobody needs")
    print(f"{package.name}: {size / 1e6:.2f} MB, {len(names)} files")


def check_use(package: Path) -> None:
    """Installs it where nothing else is, and lets it show what it can."""
    with tempfile.TemporaryDirectory(prefix="mergecore-wheel-") as folder:
        home, empty = Path(folder, "environment"), Path(folder, "empty")
        empty.mkdir()
        _run([sys.executable, "-m", "venv", str(home)], empty)
        scripts = home / ("Scripts" if os.name == "nt" else "bin")
        python = str(scripts / ("python.exe" if os.name == "nt" else "python"))
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        seconds, _ = _run([*pip, str(package)], empty)
        print(f"  pip install                {seconds:>7.2f} s, with its dependencies")
        listed = json.loads(_run([python, "-m", "pip", "list", "--format", "json"], empty)[1])
        print(f"  in the environment         {len(listed):>7} packages")
        where = "import mergecore; print(mergecore.__file__)"
        place = _run([python, "-c", where], empty)[1].strip()
        if home.resolve() not in Path(place).resolve().parents:
            raise WrongError(f"what is imported is {place}")
        command = str(scripts / ("mergecore.exe" if os.name == "nt" else "mergecore"))
        _run([command, "--help"], empty)  # the first call compiles
        runs = sorted(_run([command, "--help"], empty)[0] for _ in range(5))
        print(f"  mergecore --help           {runs[2]:>7.3f} s, median of 5")
        seconds, said = _run([command, "demo"], empty)
        if "merged-ties" not in said:
            raise WrongError(f"mergecore demo says: {said}")
        print(f"  mergecore demo             {seconds:>7.2f} s")
        if left := list(empty.iterdir()):
            raise WrongError(f"the commands left {left[0].name} behind")


def _run(command: list[str], folder: Path) -> tuple[float, str]:
    """Runs a command without the variables that would show it another Python."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise WrongError(f"{' '.join(command)}: status {done.returncode}: {said[-2000:]}")
    return time.perf_counter() - start, done.stdout


if __name__ == "__main__":
    sys.exit(main())
