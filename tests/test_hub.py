"""How is a reference turned into a path, and what is said when the hub gives nothing?"""

from __future__ import annotations

import errno
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

import checkpoints
from mergecore import ModelNotFoundError
from mergecore.models.hub import is_hub_id, locate, locate_both


def hub_error(kind):
    """One of the client's errors; those that wrap a response are made without one."""
    return kind.__new__(kind)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that answers as told; returns what it was asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []

    def answer_with(answer):
        def snapshot_download(repo, **options):
            asked.append((repo, options))
            if isinstance(answer, BaseException):
                raise answer
            return str(answer)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return asked

    return answer_with


def test_what_is_here_is_taken_from_here(hub, tmp_path):
    asked = hub(AssertionError())
    (tmp_path / "org/model+v2@main").mkdir(parents=True)
    assert locate("org/model+v2@main") == Path("org/model+v2@main")
    assert asked == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (hub_error(errors.GatedRepoError), "gated; accept its terms"),
        (hub_error(errors.RepositoryNotFoundError), "no such model"),
        (hub_error(errors.RevisionNotFoundError), "no revision 'v1'"),
        (errors.LocalEntryNotFoundError("x"), "cannot be reached"),
        (ConnectionError("x"), "cannot be reached"),
        (OSError(errno.ENOSPC, "No space left"), "is full; free some or set HF_HOME"),
        (OSError("a reason\nin two lines"), "a reason in two lines"),
    ],
)
def test_a_refusal_names_the_model_and_the_way_out(hub, error, says):
    hub(error)
    with pytest.raises(ModelNotFoundError) as caught:
        locate("org/model@v1")
    assert str(caught.value).startswith("org/model@v1: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_near_miss_of_a_local_path_is_offered(hub, tmp_path):
    (tmp_path / "models/copying").mkdir(parents=True)
    hub(hub_error(errors.RepositoryNotFoundError))
    for reference in ("models/copyin", "./models/copyin", str(tmp_path / "models/copyin")):
        with pytest.raises(ModelNotFoundError, match=r'did you mean ".*models/copying"'):
            locate(reference)


def test_offline_is_said(hub, monkeypatch):
    hub(errors.LocalEntryNotFoundError("x"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE forbids"):
        locate("org/model")


def test_an_adapter_is_fetched_without_what_belongs_to_a_model(hub, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/adapter_model.safetensors").touch()
    asked = hub(tmp_path / "cache")
    assert locate_both("base+org/adapter@v2") == (Path("base"), tmp_path / "cache")
    ((repo, options),) = asked
    assert (repo, options["revision"]) == ("org/adapter", "v2")
    assert all(pattern.startswith("adapter_") for pattern in options["allow_patterns"])
    assert locate_both("base") == (Path("base"), None)


def test_what_reads_as_a_hub_id():
    assert all(map(is_hub_id, ("org/model", "org/model.v2", "org/model@main", "o-r_g/m@pr/1")))
    assert not any(map(is_hub_id, ("model", "a/b/c", "./a", "../a", "/a/b", "~/a", "a/b c")))


def test_a_snapshot_of_links_merges_as_files_do(command, tmp_path):
    states = checkpoints.family()[1:]
    for name, state in zip("ab", states, strict=True):
        stored = checkpoints.save(tmp_path / "blobs" / name, state, shards=3)
        (stored / "tokenizer.json").write_text("{}")
        snapshot = tmp_path / name / "snapshots" / "1234"
        snapshot.mkdir(parents=True)
        for file in stored.iterdir():
            (snapshot / file.name).symlink_to(Path("../../../blobs") / name / file.name)
    answer = command("merge", "a/snapshots/1234", "b/snapshots/1234", "--method", "linear",
                     "--out", "out")  # fmt: skip
    assert answer.status == 0, answer.err
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (tmp_path / "out" / name).is_file()
        assert not (tmp_path / "out" / name).is_symlink()
