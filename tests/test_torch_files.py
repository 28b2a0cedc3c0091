"""Are old checkpoints (pytorch_model.bin) read as torch wrote them, and is nothing executed?"""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

import checkpoints
import torch_file


def test_a_bin_file_merges_as_a_safetensors_file_does(command, family, tmp_path):
    same = ("merge", "a", "b", "--method", "ties", "--base", "base")
    assert command(*same, "--out", "want").status == 0
    states = dict(zip(("base", "a", "b"), family, strict=True))
    for name, state in states.items():
        (tmp_path / name / "model.safetensors").unlink()
        transposed = {k: v if v.ndim != 2 else np.asfortranarray(v) for k, v in state.items()}
        content = torch_file.image(transposed, epoch=3)
        (tmp_path / name / "pytorch_model.bin").write_bytes(content)
    answer = command(*same, "--out", "out")
    assert answer.status == 0, answer.err
    assert "epoch" in answer.out + answer.err
    want, got = checkpoints.load(tmp_path / "want"), checkpoints.load(tmp_path / "out")
    assert list(got) == list(want)
    for name in want:
        assert got[name].dtype == want[name].dtype
        assert got[name].tobytes() == want[name].tobytes(), name
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "want"))
    answer = command("show", "a", "--json")
    assert '"torch"' in answer.out
    assert command("merge", "a/pytorch_model.bin", "b", "--method", "linear").status == 0


class Evil:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_nothing_is_executed(refused, family, tmp_path):
    program = pickle.dumps({"w": Evil(str(tmp_path / "executed"))}, 2)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    (tmp_path / "b/model.safetensors").unlink()
    (tmp_path / "b/pytorch_model.bin").write_bytes(file.getvalue())
    message = refused("merge", "a", "b", "--method", "linear", "--out", "out")
    assert "b/pytorch_model.bin: asks for " in message
    assert ".system, which is no part of a tensor" in message
    assert not (tmp_path / "executed").exists()


# What torch itself writes


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: it writes these files")


def saved(folder, state, **options):
    import torch

    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin", **options)
    (folder / "config.json").write_text("{}")


def test_what_torch_saves_is_read_back(torch, command, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.BatchNorm1d(5))
    state = model.state_dict()  # with _metadata, and a counter
    matrix = torch.randn(40, 30)
    state |= {
        "transposed": matrix.T,
        "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
        "slice": matrix[3:9],
        "column": matrix[:, 4],
        "expanded": torch.randn(1, 3).expand(4, 3),
        "tied": state["0.weight"],
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "bool": torch.tensor([True, False]),
        **{
            str(dtype): torch.randn(6).to(dtype)
            for dtype in (torch.float64, torch.float16, torch.bfloat16)
        },
        **{
            str(dtype): torch.arange(6).to(dtype)
            for dtype in (torch.int8, torch.uint8, torch.int16, torch.int32)
        },
    }
    saved(tmp_path / "a", state)
    saved(tmp_path / "inside", {"state_dict": state, "epoch": 3, "lr": 0.1, "names": ["x"]})
    for name in ("a", "inside"):
        answer = command("merge", name, name, "--method", "linear", "--out", f"{name}-out")
        assert answer.status == 0, answer.err
        from safetensors.torch import load_file

        merged = load_file(tmp_path / f"{name}-out/model.safetensors")
        assert sorted(merged) == sorted(state)
        for key, tensor in state.items():
            assert merged[key].dtype == tensor.dtype
            assert torch.equal(merged[key], tensor.detach()), key


def test_torch_s_other_formats_are_refused(torch, refused, tmp_path):
    state = {"w": torch.ones(2)}
    saved(tmp_path / "old", state, _use_new_zipfile_serialization=False)
    saved(tmp_path / "protocol", state, pickle_protocol=4)
    saved(tmp_path / "whole", torch.nn.Linear(2, 2))
    saved(tmp_path / "optimizer", {"state_dict": state, "optimizer": {"m": state["w"]}})
    saved(tmp_path / "complex", {"w": torch.ones(2, dtype=torch.complex64)})
    saved(tmp_path / "float8", {"w": torch.ones(2).to(torch.float8_e4m3fn)})
    for name, says in {
        "old": "old format",
        "protocol": "protocol 4",
        "whole": "torch.nn.modules.linear.Linear",
        "optimizer": "state_dict, optimizer",
        "complex": "tensor w has the dtype C64",
        "float8": "tensor w is quantised",
    }.items():
        message = refused("show", name)
        assert f"{name}/pytorch_model.bin: " in message
        assert says in message
