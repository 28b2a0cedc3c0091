"""Do models of different tokenizers merge as in mergekit? Rows are compared by their tokens.

mergekit numbers new words by the order of a hash table, which changes from run to run; mergecore by
the order of the models. So it is a token's row that must be the same, not a row's number.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import checkpoints
import mergecore
import vocabularies
from mergecore import recipe as mergecore_recipe

PYTHON = os.environ.get("MERGECORE_MERGEKIT")
ORACLE = Path(__file__).with_name("mergekit_oracle.py")

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="the environment variable MERGECORE_MERGEKIT names no python with mergekit"
)

KINDS = ("bpe", "words")
# mergekit leaves tokens without a row out of byte-pair tokenizers only, and refuses others.
BPE_ONLY = ("beyond-the-rows",)


def asked(method="linear", models=("base", "a", "b"), **keys):
    own = {} if method == "slerp" else {"parameters": {"weight": 0.5}}
    each = [{"model": model, **own} for model in models]
    # mergekit's slerp is some ulps from its own formula in float32, in float64 it is not.
    dtypes = {"dtype": "float64" if method == "slerp" else "float32", "out_dtype": "float32"}
    return {"merge_method": method, "models": each, **dtypes, **keys}


def token(**said):
    return {"source": "union", "tokens": {"<a>": said}}


RECIPES = {
    "union": asked(tokenizer_source="union"),
    "union-based": asked(tokenizer_source="union", base_model="base"),
    "union-ties": asked(
        "ties", ("a", "b"), base_model="base", tokenizer_source="union", parameters={"density": 0.5}
    ),
    "union-arithmetic": asked(
        "task_arithmetic", ("a", "b"), base_model="b", tokenizer_source="union"
    ),
    "union-slerp": asked(
        "slerp", ("a", "b"), base_model="a", tokenizer_source="union", parameters={"t": 0.3}
    ),
    "base": asked(tokenizer_source="base", base_model="base"),
    "model": asked(tokenizer_source="b"),
    "model-beside-a-base": asked(tokenizer_source="a", base_model="base"),
    "mapping": asked(tokenizer={"source": "union"}),
    "padded-to-64": asked(tokenizer={"source": "union", "pad_to_multiple_of": 64}),
    "padded-to-one": asked(
        models=("wide", "a"),
        tokenizer={"source": "base", "pad_to_multiple_of": 1},
        base_model="wide",
    ),
    "beyond-the-rows": asked(tokenizer_source="union", models=("short", "a"), base_model="short"),
    "token-of-a-model": asked(tokenizer=token(source="a")),
    "token-forced": asked(tokenizer=token(source="a", force=True)),
    "token-zero": asked(tokenizer=token(source={"kind": "zero"}, force=True)),
    "token-like-another": asked(
        tokenizer=token(source={"kind": "model_token", "model": "b", "token": "<b>"})
    ),
    "token-by-number": asked(
        tokenizer=token(source={"kind": "model_token", "model": "b", "token_id": 5}, force=True)
    ),
    "token-that-is-new": asked(
        tokenizer={
            "tokens": {"<new>": {"source": {"kind": "model_token", "model": "a", "token": "<a>"}}}
        }
    ),
}


def write_family(folder: Path, kind: str) -> None:
    if kind == "bpe":
        tales, sums = vocabularies.TEXTS["tales"], vocabularies.TEXTS["sums"]
        base = vocabularies.bpe(tales, 290)
        a = vocabularies.bpe(tales, 290, ["<a>", "<both>"])
        b = vocabularies.bpe(sums, 300, ["<both>", "<b>"])
        short = vocabularies.bpe(tales, 290, ["<late>"])
    else:
        base = vocabularies.words("one two three four five six".split())
        a = vocabularies.words("one two three four five six".split(), ["<a>", "<both>"])
        b = vocabularies.words("nine six three two seven".split(), ["<both>", "<b>"])
        short = vocabularies.words("one two three four five six".split(), ["<late>"])
    vocabularies.save(folder / "base", base, 1)
    vocabularies.save(folder / "a", a, 2)
    vocabularies.save(folder / "b", b, 3)
    vocabularies.save(folder / "wide", base, 4, rows=base.get_vocab_size() + 7)
    vocabularies.save(folder / "short", short, 5, rows=short.get_vocab_size() - 1)


@pytest.fixture(scope="module")
def merged(tmp_path_factory) -> Path:
    """A folder with the models, every recipe, and mergekit's outputs."""
    root = tmp_path_factory.mktemp("vocabularies")
    for kind in KINDS:
        write_family(root / kind, kind)
        for name, content in RECIPES.items():
            placed = mergecore_recipe.with_references(
                content, lambda model, kind=kind: str(root / kind / model)
            )
            (root / f"{name}.{kind}.yml").write_text(json.dumps(placed))
    done = subprocess.run(
        [PYTHON, ORACLE, root], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize(
    ("name", "kind"), [(n, k) for n in RECIPES for k in KINDS if k == "bpe" or n not in BPE_ONLY]
)
def test_every_token_has_the_row_that_mergekit_gives_it(name, kind, merged, tmp_path):
    stem = f"{name}.{kind}"
    assert not (merged / f"{stem}.refused").exists(), (merged / f"{stem}.refused").read_text()
    mergecore.run(merged / f"{stem}.yml", tmp_path / "out")
    theirs = merged / f"{stem}.mergekit"
    ours, expected = checkpoints.load(tmp_path / "out"), checkpoints.load(theirs)
    for tensor in ("model.embed_tokens.weight", "lm_head.weight"):
        assert ours[tensor].shape == expected[tensor].shape
        actual, wanted = (vocabularies.rows(at, tensor) for at in (tmp_path / "out", theirs))
        assert actual.keys() == wanted.keys()
        for token, row in wanted.items():
            assert_near(actual[token], row, token)
        padding = slice(len(wanted), None)
        # A mean of hundreds of rows is float32 there.
        np.testing.assert_allclose(ours[tensor][padding], expected[tensor][padding], atol=1e-7)
    layer = "model.layers.0.mlp.up_proj.weight"
    assert_near(ours[layer], expected[layer], layer)
    sizes = [json.loads((at / "config.json").read_text()) for at in (tmp_path / "out", theirs)]
    assert sizes[0]["vocab_size"] == sizes[1]["vocab_size"]


def assert_near(actual: np.ndarray, expected: np.ndarray, what: str) -> None:
    """At most one ulp apart, at the size of the weights: normal, of standard deviation 0.1."""
    ulp = np.spacing(np.maximum(np.abs(expected), np.float32(0.1)))
    assert (np.abs(actual - expected) <= ulp).all(), what
