"""A file as `torch.save` writes it, without torch: a zip archive of a pickle and the storages."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_CLASSES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@contextmanager
def _stand_ins() -> Iterator[dict[str, Any]]:
    """Modules with torch's names, so that the pickler may refer to them."""
    names: dict[str, Any] = {}

    def define(module: str, name: str, kind: Any) -> None:
        kind.__module__, kind.__qualname__, kind.__name__ = module, name, name
        setattr(sys.modules[module], name, kind)
        names[name] = kind

    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    for name in before:
        sys.modules[name] = types.ModuleType(name)
    try:
        for name in _CLASSES.values():
            define("torch", name, type(name, (), {}))
        define("torch._utils", "_rebuild_tensor_v2", lambda *_: None)
        yield names
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def image(tensors: Mapping[str, Any], **others: Any) -> bytes:
    """The bytes of a torch file of these arrays; `others` are entries that are no tensors.

    Arrays may be transposed as a whole: the bytes are those of their memory.
    """
    arrays = list(tensors.values())
    with _stand_ins() as torch:

        class Tensor:
            def __init__(self, number: int) -> None:
                self.number = number

            def __reduce__(self) -> tuple[Any, ...]:
                array = arrays[self.number]
                strides = tuple(stride // array.itemsize for stride in array.strides)
                storage = Storage()
                storage.number = self.number
                arguments = (storage, 0, array.shape, strides, False, OrderedDict())
                return torch["_rebuild_tensor_v2"], arguments

        class Storage:
            number: int

        class Pickler(pickle.Pickler):
            def persistent_id(self, value: object) -> object:
                if not isinstance(value, Storage):
                    return None
                array = arrays[value.number]
                kind = torch[_CLASSES[array.dtype.name]]
                return "storage", kind, str(value.number), "cpu", array.size

        program = io.BytesIO()
        state = OrderedDict((name, Tensor(i)) for i, name in enumerate(tensors))
        Pickler(program, 2).dump(OrderedDict({**state, **others}))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program.getvalue())
        archive.writestr("archive/byteorder", "little")
        for i, array in enumerate(arrays):
            archive.writestr(f"archive/data/{i}", array.tobytes("A"))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()
