"""Stand-ins: bundles of any size that answer exactly as a small one does.

A table of seeded noise is added to the model. Rows of it are chosen by the
answer, multiplied by 0 and added to the answer, so that no optimiser can leave
the table out and no answer changes by a bit. The noise does not compress, and
it is written as it is made: memory does not grow with the size.

Source: the protocol buffers encoding (a message is a run of tagged fields, in
any order) and the field numbers in onnx.proto.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

from sample import SampleError

_DESCRIPTION = "model.toml"
_LIMIT = 2**31 - 1
_STEP = 8 * 1024 * 1024
_GRAPH_FIELD = 7
_INITIALIZER_FIELD = 5
_RAW_DATA_FIELD = 9
# With this bit of the exponent cleared a float32 is below 2 and never infinite
# or no number, so that 0 times it is 0.
_FINITE = np.uint32(0xBFFFFFFF)


class StandinError(SampleError):
    """A stand-in cannot be made as wished."""


def write(directory: Path, *, size: int, seed: int, base: Path) -> None:
    """Make a bundle that is as large as wished and answers as `base` does.

    Its version is the base's with the size and the seed appended.

    Args:
        directory: Where to make it; created if needed.
        size: Bytes of the model's file; met up to a row of the table, that is
            4 bytes for each class.
        seed: Another seed gives other bytes.
        base: The author's directory to start from.

    Raises:
        StandinError: The size is too small for the base or too large for one
            ONNX file (2 GiB), or the base's version cannot be found.
    """
    described = (base / _DESCRIPTION).read_text(encoding="utf-8")
    file = tomllib.loads(described)["interface"]["model"]
    renamed = _rename(described, f"-standin-{size}-{seed}")
    shutil.copytree(
        base,
        directory,
        ignore=shutil.ignore_patterns(_DESCRIPTION, Path(file).name),
        dirs_exist_ok=True,
    )
    (directory / _DESCRIPTION).unlink(missing_ok=True)
    with (directory / file).open("wb") as target:
        _write_model(onnx.load(base / file), target, size, seed)
    (directory / _DESCRIPTION).write_text(renamed, encoding="utf-8", newline="\n")


def _rename(described: str, suffix: str) -> str:
    renamed, count = re.subn(
        r'^(version *= *"[^"\n]*)"',
        lambda match: f'{match[1]}{suffix}"',
        described,
        count=1,
        flags=re.MULTILINE,
    )
    if not count:
        raise StandinError(f'{_DESCRIPTION} has no line such as version = "1"')
    return renamed


def _write_model(model: onnx.ModelProto, target: BinaryIO, size: int, seed: int) -> None:
    classes = _classes(model.graph)
    _attach_table(model.graph)
    rows = _rows(model, size, classes)
    model.graph.initializer.append(
        helper.make_tensor("standin_rows", TensorProto.INT64, [], [rows])
    )
    noise = rows * classes * 4
    table = _table(rows, classes)
    graph = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    target.write(model.SerializeToString(deterministic=True))
    target.write(_tag(_GRAPH_FIELD, len(graph) + len(table) + noise))
    target.write(graph + table)
    target.writelines(_noise(noise, seed))


def _classes(graph: onnx.GraphProto) -> int:
    dimensions = graph.output[0].type.tensor_type.shape.dim
    if len(dimensions) != 2 or not dimensions[1].dim_value:
        raise StandinError("the base's output is not a row for each picture")
    return int(dimensions[1].dim_value)


def _rows(model: onnx.ModelProto, size: int, classes: int) -> int:
    # A few tags, lengths and the number of rows are still to come.
    smallest = int(model.ByteSize()) + 128 + classes * 4
    if not smallest <= size <= _LIMIT:
        raise StandinError(f"a size of {size} is not in {smallest} to {_LIMIT} bytes")
    return (size - smallest) // (classes * 4) + 1


def _attach_table(graph: onnx.GraphProto) -> None:
    result = graph.output[0].name
    for node in graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = "standin_answer" if name == result else name
    steps = (
        ("Mod", "standin_class", "standin_rows", "standin_row"),
        ("Gather", "standin_table", "standin_row", "standin_noise"),
        ("Mul", "standin_noise", "standin_zero", "standin_nothing"),
        ("Add", "standin_answer", "standin_nothing", result),
    )
    best = ["standin_answer"], ["standin_class"]
    graph.node.append(helper.make_node("ArgMax", *best, axis=1, keepdims=0))
    graph.node.extend(
        helper.make_node(kind, [first, second], [output]) for kind, first, second, output in steps
    )
    zero = helper.make_tensor("standin_zero", TensorProto.FLOAT, [], [0.0])
    graph.initializer.append(zero)


def _table(rows: int, classes: int) -> bytes:
    """Give the table as a field of the graph, short of the noise itself."""
    noise = rows * classes * 4
    table = TensorProto(name="standin_table", data_type=TensorProto.FLOAT, dims=[rows, classes])
    head: bytes = table.SerializeToString(deterministic=True)
    head += _tag(_RAW_DATA_FIELD, noise)
    return _tag(_INITIALIZER_FIELD, len(head) + noise) + head


def _tag(field: int, length: int) -> bytes:
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _noise(size: int, seed: int) -> Iterator[bytes]:
    # Unlike the distributions of a Generator, the stream of a bit generator is
    # the same in all versions of numpy.
    bits = np.random.PCG64(seed)
    for start in range(0, size, _STEP):
        count = min(_STEP, size - start)
        words = bits.random_raw(-(-count // 8)).astype("<u8").view("<u4")
        yield (words & _FINITE).astype("<u4").tobytes()[:count]
