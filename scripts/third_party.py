"""Whose code is linked into the wheel, and under which terms? Writes THIRD_PARTY.

    python scripts/third_party.py            writes it
    python scripts/third_party.py --check    status 1 if it is stale: a dependency has changed

What counts are the crates that end up in the binary, on any system that there are wheels for: no
build scripts, no macros, no tests. Of a crate that offers Apache-2.0 that is taken, whose text is
LICENSE; of any other every text that it ships is here, with its copyright lines, and where its
source is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_FILE = _ROOT / "THIRD_PARTY"
_TARGETS = (
    *("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-pc-windows-msvc"),
    *("x86_64-apple-darwin", "aarch64-apple-darwin"),
)
_TEXTS = ("LICEN", "COPYING", "UNLICENSE", "NOTICE")
_HEAD = """\
The compiled part of mergecore holds code of the crates below and of Rust's standard library (MIT
or Apache-2.0, taken under Apache-2.0). Written by scripts/third_party.py; edit nothing here.
"""
_MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def main() -> int:
    """Writes the file, or says whether it is what would be written."""
    linked = {crate["id"]: crate for target in _TARGETS for crate in _linked(target)}
    text = _rendered(sorted(linked.values(), key=lambda crate: (crate["name"], crate["version"])))
    if "--check" not in sys.argv[1:]:
        _FILE.write_text(text, "utf-8")
        return 0
    if _FILE.is_file() and _FILE.read_text("utf-8") == text:
        return 0
    print("error: THIRD_PARTY is stale; run python scripts/third_party.py", file=sys.stderr)
    return 1


def _linked(target: str) -> Iterator[dict[str, Any]]:
    """The crates that the extension module is linked from, but for our own."""
    command = [
        "cargo",
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        target,
    ]
    said = json.loads(subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, check=True).stdout)
    crates = {crate["id"]: crate for crate in said["packages"]}
    needs = {node["id"]: node["deps"] for node in said["resolve"]["nodes"]}
    waiting = [identity for identity, crate in crates.items() if crate["name"] == "mergecore-py"]
    seen: set[str] = set()
    while waiting:
        identity = waiting.pop()
        if identity in seen or _is_macro(crates[identity]):
            continue
        seen.add(identity)
        if crates[identity]["source"] is not None:
            yield crates[identity]
        linked = (d for d in needs[identity] if any(k["kind"] is None for k in d["dep_kinds"]))
        waiting += [dependency["pkg"] for dependency in linked]


def _is_macro(crate: dict[str, Any]) -> bool:
    return any("proc-macro" in target["kind"] for target in crate["targets"])


def _rendered(crates: list[dict[str, Any]]) -> str:
    apache: list[str] = []
    others: dict[str, list[str]] = defaultdict(list)  # text: the crates that have it
    for crate in crates:
        called = f"{crate['name']} {crate['version']}"
        texts = _texts(crate)
        if "Apache-2.0" in crate["license"].replace("/", " OR ").split(" OR "):
            apache.append(f"{called} ({crate['license']})")
            own = [text for name, text in texts if name.startswith(("NOTICE", "LICENSE-THIRD"))]
        else:
            own = [text for _, text in texts] or [_stated(crate)]
        for text in own:
            others[text].append(
                f"{called} ({crate['license']}), {crate['repository'] or 'no address'}"
            )
    parts = [
        _HEAD,
        "Under Apache-2.0, whose text is LICENSE:\n\n" + "".join(f"  {c}\n" for c in apache),
    ]
    parts += ["\n".join(whose) + f":\n\n{text}\n" for text, whose in others.items()]
    return ("\n" + "-" * 100 + "\n\n").join(parts)


def _texts(crate: dict[str, Any]) -> list[tuple[str, str]]:
    """The licence files that a crate ships, as they are but for the ends of their lines."""
    folder = Path(crate["manifest_path"]).parent
    names = sorted(
        f.name for f in folder.iterdir() if f.is_file() and f.name.upper().startswith(_TEXTS)
    )
    read = ((name, (folder / name).read_text("utf-8", errors="replace")) for name in names)
    return [
        (name, "\n".join(line.rstrip() for line in text.strip().splitlines()))
        for name, text in read
    ]


def _stated(crate: dict[str, Any]) -> str:
    """What a crate without a licence file says in its manifest: so far each is under MIT."""
    if crate["license"] != "MIT":
        raise SystemExit(
            f"error: {crate['name']} ships no text of {crate['license']}; write one by hand"
        )
    authors = ", ".join(author.split(" <")[0] for author in crate["authors"]) or "its authors"
    return f"Copyright (c) {authors}\n\n{_MIT.strip()}"


if __name__ == "__main__":
    sys.exit(main())
