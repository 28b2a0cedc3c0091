"""What is fetched from a hub, and what is said? The client against a hub on the loopback."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest

import checkpoints
import hub_server
import torch_file
import vocabularies
from hub_server import COMMIT, Repo, serve

TENSORS = checkpoints.family()[0]
WEIGHTS = checkpoints.safetensors(TENSORS)
# No two alike, none empty: those are not asked for.
SIDE = {"config.json": b"{}", "tokenizer.json": b"{ }", "README.md": b"# M", "custom.py": b"pass"}
NEVER = dict.fromkeys(
    "logo.png original/params.json onnx/model.onnx optimizer.pt training_args.bin model.gguf "
    "tf_model.h5".split(),
    b"x",
)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment without any of the user's own settings of the hub."""
    monkeypatch.chdir(tmp_path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        kept.pop(name, None)
        kept.pop(name.upper(), None)
    return {**kept, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture
def show(environment):
    """Runs `mergecore show MODEL --json` in a process of its own, asking this hub."""

    def run(hub: hub_server.Hub, model: str = "org/model", **settings: str):
        hub.asked.clear()
        done = subprocess.run(
            [sys.executable, "-m", "mergecore", "show", model, "--json"],
            env={**environment, "HF_ENDPOINT": hub.endpoint, **settings},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def found(show):
    """What `show` says of a model that it finds."""

    def run(*arguments, **settings):
        done = show(*arguments, **settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def refused(show):
    """The one line with which a model is refused."""

    def run(*arguments, **settings):
        done = show(*arguments, **settings)
        assert done.returncode == 2, done
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    return run


def sharded(ending: str, write) -> dict[str, bytes]:
    """Two shards and the index that names them."""
    names = list(TENSORS)
    stem = "model" if ending == "safetensors" else "pytorch_model"
    files, weight_map = {}, {}
    for i in range(2):
        file = f"{stem}-{i + 1:05}-of-00002.{ending}"
        files[file] = write({name: TENSORS[name] for name in names[i::2]})
        weight_map |= dict.fromkeys(names[i::2], file)
    files[f"{stem}.{ending}.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return files


SAFE = sharded("safetensors", checkpoints.safetensors)
BIN = sharded("bin", torch_file.image)


@pytest.mark.parametrize(
    ("files", "weights", "format_"),
    [
        ({"model.safetensors": WEIGHTS, "pytorch_model.bin": b"x"}, ["model.safetensors"], "safe"),
        (SAFE | BIN | {"stray.safetensors": b"x", "consolidated.safetensors": b"x"}, SAFE, "safe"),
        ({"model.safetensors": WEIGHTS} | BIN, ["model.safetensors"], "safe"),
        ({"weights.safetensors": WEIGHTS}, ["weights.safetensors"], "safe"),
        ({"pytorch_model.bin": torch_file.image(TENSORS)}, ["pytorch_model.bin"], "torch"),
        (BIN, BIN, "torch"),
    ],
    ids=["one", "shards", "one and .bin shards", "another name", ".bin", ".bin shards"],
)
def test_weights_are_fetched_in_one_format(found, files, weights, format_):
    with serve(model=Repo({**SIDE, **NEVER, **files})) as hub:
        described = found(hub)
        indexes = {name for name in files if name.endswith(".index.json")}
        assert hub.fetched() == sorted({*SIDE, *weights, *indexes})
        assert described["format"].startswith(format_)
        assert len(described["tensors"]) == len(TENSORS)
        found(hub)
        assert hub.fetched() == []  # nothing twice


def test_of_a_model_that_lends_its_tokenizer_no_weights_are_fetched(environment, tmp_path):
    lender = vocabularies.words(["two", "one"])
    vocabularies.save(tmp_path / "lender", lender, 1)
    vocabularies.save(tmp_path / "model", vocabularies.words(["one", "two"]), 2)
    files = {path.name: path.read_bytes() for path in (tmp_path / "lender").iterdir()}
    recipe = {"merge_method": "linear", "models": ["model"], "tokenizer_source": "org/lender"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with serve(lender=Repo(files)) as hub:
        done = subprocess.run(
            [sys.executable, "-m", "mergecore", "run", "recipe.json", "out"],
            env={**environment, "HF_ENDPOINT": hub.endpoint},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert hub.fetched() == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    merged, own = vocabularies.rows(tmp_path / "out"), vocabularies.rows(tmp_path / "model")
    assert merged.keys() == own.keys()
    for token, row in own.items():
        np.testing.assert_array_equal(merged[token], row)


def test_a_revision_is_asked_for(found, refused):
    files = {**SIDE, "model.safetensors": WEIGHTS}
    with serve(model=Repo(files, revisions=("main", "v1.0", "refs/pr/1"))) as hub:
        for revision in ("v1.0", COMMIT):
            assert COMMIT in found(hub, f"org/model@{revision}")["path"]
        message = refused(hub, "org/model@v2")
        assert "org/model@v2: the model has no revision 'v2'" in message


def test_a_token_is_sent_and_its_lack_is_said(found, refused):
    files = {**SIDE, "model.safetensors": WEIGHTS}
    gated = Repo(files, token="hf_right", gated=True)
    with serve(gated=gated, private=Repo(files, token="hf_right")) as hub:
        message = refused(hub, "org/gated")
        assert f"org/gated: the model is gated; accept its terms at {hub.endpoint}" in message
        assert "gated" in refused(hub, "org/gated", HF_TOKEN="hf_wrong")
        assert "a private one needs `hf auth login`" in refused(hub, "org/private")
        message = refused(hub, "org/private", HF_TOKEN="hf_wrong")
        assert "(403); is the token" in message
        assert "hf_wrong" not in message
        found(hub, "org/private", HF_TOKEN="hf_right")
        assert any(sent.get("authorization") == "Bearer hf_right" for _, _, sent in hub.asked)


def test_what_the_hub_does_not_have(refused):
    with serve(
        empty=Repo(SIDE),
        gguf=Repo({**SIDE, "q4.gguf": b"x"}),
        adapter=Repo({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}),
        many=Repo({**SIDE, "a.safetensors": b"x", "b.safetensors": b"x"}),
        broken=Repo({}, status=500),
    ) as hub:
        for model, says in {
            "gone": "the hub has no such model",
            "empty": "no safetensors or .bin weights",
            "gguf": "only GGUF",
            "adapter": "is an adapter",
            "many": "2 weights files of it (a.safetensors, …) and no index",
            "broken": "HTTP status 500; try again later",
        }.items():
            message = refused(hub, f"org/{model}")
            assert says in message
            assert f"org/{model}: " in message
            assert not any(name.endswith((".safetensors", ".gguf")) for name in hub.fetched())


def test_offline_the_cache_is_enough_or_its_lack_is_said(found, refused):
    files = {**SIDE, **SAFE, **BIN, "optimizer.pt": b"x"}
    with serve(model=Repo(files)) as hub:
        message = refused(hub, HF_HUB_OFFLINE="1")
        assert "not whole in the hub's cache, and HF_HUB_OFFLINE forbids" in message
        assert hub.asked == []
        folder = Path(found(hub)["path"])
        assert found(hub, HF_HUB_OFFLINE="1")["path"] == str(folder)
        assert hub.asked == []
    # The hub is gone, the cache is not.
    assert found(hub)["path"] == str(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    message = refused(hub, HF_HUB_OFFLINE="1")
    assert "not whole in the hub's cache, and HF_HUB_OFFLINE forbids" in message
    message = refused(hub)
    assert f"{hub.endpoint} cannot be reached; check the network" in message
    assert "cannot be reached" in refused(hub, "org/other")


def test_files_that_came_whole_are_kept_when_a_download_is_killed(environment, found):
    first, second = sorted(name for name in SAFE if name.endswith(".safetensors"))
    with serve(model=Repo({**SIDE, **SAFE}, stalls={second: 100})) as hub:
        process = subprocess.Popen(
            [sys.executable, "-m", "mergecore", "show", "org/model", "--json"],
            env={**environment, "HF_ENDPOINT": hub.endpoint},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert hub.stalled.wait(60)
        snapshot = Path(environment["HF_HOME"], "hub/models--org--model/snapshots", COMMIT)
        while not (snapshot / first).exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert len(found(hub)["tensors"]) == len(TENSORS)
        assert hub.fetched() == [second]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(show):
    content = checkpoints.safetensors({"w": np.zeros(8 << 20, np.float32)})
    cut = 25 << 20
    repo = Repo({**SIDE, "model.safetensors": content}, cuts={"model.safetensors": cut})
    begins = []
    with serve(model=repo) as hub:
        for _ in range(2):  # older clients give up, and go on in the next run
            done = show(hub)
            weights = [sent for _, path, sent in hub.gets() if path.endswith("/model.safetensors")]
            begins += [int(sent.get("range", "bytes=0-")[len("bytes=") : -1]) for sent in weights]
            if done.returncode == 0:
                break
    assert json.loads(done.stdout)["parameters"] == 8 << 20
    assert begins[0] == 0 < begins[1] <= cut
    assert len(begins) == 2


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_is_shown_on_a_terminal(environment, quiet):
    with serve(model=Repo({**SIDE, "model.safetensors": WEIGHTS})) as hub:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        done = subprocess.run(
            [sys.executable, "-m", "mergecore", "show", "org/model", *(["--json"] * quiet)],
            env={**environment, "HF_ENDPOINT": hub.endpoint, "TERM": "xterm"},
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            timeout=120,
        )
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        assert done.returncode == 0
        assert (b"%" in said) is not quiet, said
