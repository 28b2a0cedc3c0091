"""What does importing mergecore cost? Nothing heavy is loaded before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "transformers", "huggingface_hub", "tokenizers", "rich", "vllm")


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `code`."""
    report = "\nimport sys; print(*sorted({m.partition('.')[0] for m in sys.modules}), sep=',')"
    done = subprocess.run(
        [sys.executable, "-c", code + report], check=True, capture_output=True, text=True
    )
    return set(done.stdout.splitlines()[-1].split(","))


def test_importing_loads_nothing_but_itself():
    loaded = loaded_after("import mergecore")
    assert not loaded & {*HEAVY, "click", "yaml"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["nonsense"]])
def test_the_command_line_starts_light(arguments):
    loaded = loaded_after(f"from mergecore.cli import main\nmain({arguments!r})")
    assert not loaded & {*HEAVY, "yaml"}


def test_arrays_in_memory_need_neither_torch_nor_the_hub():
    loaded = loaded_after("import mergecore, numpy\nmergecore.linear([numpy.zeros(3)] * 2)")
    assert not loaded & {"torch", "transformers", "huggingface_hub", "rich", "click"}


def test_every_public_name_is_found_and_listed():
    import mergecore

    for name in mergecore.__all__:
        assert getattr(mergecore, name) is not None
    assert {"merge", "ties", "dare_ties", "random_mask", "MergecoreError"} <= set(dir(mergecore))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mergecore.no_such_name


def test_a_submodule_does_not_hide_a_function():
    code = "import mergecore.merging, mergecore.arrays, mergecore.recipe, mergecore\n"
    loaded_after(code + "assert callable(mergecore.merge) and callable(mergecore.run)")


def test_stubs_are_fresh():
    check = [sys.executable, "-m", "mergecore._stubs", "--check"]
    assert subprocess.run(check, capture_output=True, text=True).stderr == ""
