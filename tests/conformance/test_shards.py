"""Is an output in shards what mergekit's is, and found through its index?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cases import SHARD_SIZES

import checkpoints
import mergecore


def files_of(folder: Path) -> dict[str, list[str]]:
    """The tensors of every file, as the files have them; they must be as the index has them."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    held: dict[str, list[str]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        content = file.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        held[file.name] = sorted(header.keys() - {"__metadata__"})
    listed: dict[str, list[str]] = {}
    for name, file in sorted(index["weight_map"].items()):
        listed.setdefault(file, []).append(name)
    assert held == listed
    return held


@pytest.mark.parametrize("name", SHARD_SIZES)
def test_shards_are_as_large_and_as_complete_as_mergekit_s(name, merged, tmp_path):
    size = SHARD_SIZES[name]
    mergecore.run(merged / f"{name}.yml", tmp_path / "out", shard_size=size)
    ours, theirs = files_of(tmp_path / "out"), files_of(merged / f"{name}.mergekit")
    assert len(ours) > 2
    assert len(theirs) > 2
    tensors = checkpoints.load(tmp_path / "out")
    for file, names in ours.items():
        assert len(names) == 1 or sum(tensors[name].nbytes for name in names) <= size, file
    numbers = [f"model-{i + 1:05}-of-{len(ours):05}.safetensors" for i in range(len(ours))]
    assert list(ours) == numbers
