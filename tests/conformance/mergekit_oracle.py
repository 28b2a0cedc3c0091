"""Runs recipes with mergekit, in the Python that has it: `python mergekit_oracle.py FOLDER`.

For every `NAME.yml` in the folder it writes `NAME.mergekit/`, or `NAME.refused` with its reason;
`NAME.options`, if there is one, has more of its options in JSON. One process for all, since
importing mergekit takes longer than the merges. conftest.py starts it; it is no test itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge


def main(folder: Path) -> None:
    common = {"copy_tokenizer": False, "write_model_card": False, "quiet": True}
    common["lora_merge_cache"] = str(folder / "adapted")
    for file in sorted(folder.glob("*.yml")):
        more = file.with_suffix(".options")
        options = MergeOptions(**common, **json.loads(more.read_text() if more.exists() else "{}"))
        try:
            recipe = MergeConfiguration.model_validate(yaml.safe_load(file.read_text()))
            run_merge(recipe, str(file.with_suffix(".mergekit")), options)
        except Exception as error:  # one recipe that it refuses must not hide the others
            file.with_suffix(".refused").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
