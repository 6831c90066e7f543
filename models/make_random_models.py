#!/usr/bin/env python3
"""Make random models with requests and onnxruntime's own answers, for the equality tests of e2e.

    python models/make_random_models.py FOLDER --count 200 --hostile 1200 --seed 11

FOLDER gets `tensors.bin`, `manifest.json` and two kinds of models. The same seed makes the same files.

`repository/`: graphs of known nature, of every datatype and rank, to be served. The manifest has their operators, which
of them mixes rows, their requests and, for each request alone, the answer of onnxruntime-python.

`hostile/`: graphs made to deceive an analysis of them, with random axes, computed shapes, folded constants and moved
batch axes. Nobody knows whether they mix rows: the manifest has the answers to rows alone and to the same rows in one
run, and an analysis that says "may share a run" where they differ is wrong.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

KINDS = {
    "BOOL": (T.BOOL, np.bool_),
    "UINT8": (T.UINT8, np.uint8),
    "UINT16": (T.UINT16, np.uint16),
    "UINT32": (T.UINT32, np.uint32),
    "UINT64": (T.UINT64, np.uint64),
    "INT8": (T.INT8, np.int8),
    "INT16": (T.INT16, np.int16),
    "INT32": (T.INT32, np.int32),
    "INT64": (T.INT64, np.int64),
    "FP16": (T.FLOAT16, np.float16),
    "BF16": (T.BFLOAT16, None),
    "FP32": (T.FLOAT, np.float32),
    "FP64": (T.DOUBLE, np.float64),
    "BYTES": (T.STRING, np.object_),
}
FLOAT_UNARY = ["Relu", "Sigmoid", "Tanh", "Erf", "Neg", "Abs", "Softplus", "LeakyRelu", "Floor", "Ceil", "Round", "Sign", "Elu", "HardSigmoid", "Softsign", "Identity"]
SMALL = ("UINT8", "UINT16", "INT8", "INT16")
# Where the engine has a kernel of `Where`.
CHOOSES = ("UINT8", "INT8", "INT32", "INT64", "FP16", "FP64", "BYTES")
DOUBLE_UNARY = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Floor", "Ceil", "Round", "Identity"]
HALF_UNARY = ["Relu", "Neg", "Abs", "Identity", "Sigmoid", "Tanh"]
BINARY = ["Add", "Sub", "Mul"]
ROWS = [1, 2, 1, 3, 1, 1]


# Each mixes rows by itself.
MIXES = ["DynamicQuantizeLinear", "Softmax", "ReduceSum", "If"]


def branches(value: str, axis: int, shape: list | None) -> dict[str, onnx.GraphProto]:
    """Of an `If`: one takes a maximum over an axis away, the other does nothing."""
    info = [helper.make_tensor_value_info(n, T.FLOAT, shape) for n in (f"{value}_then", f"{value}_else")]
    top = f"{value}_top"
    then = [helper.make_node("ReduceMax", [value], [top], axes=[axis], keepdims=1), helper.make_node("Sub", [value, top], [info[0].name])]
    other = [helper.make_node("Identity", [value], [info[1].name])]
    return {"then_branch": helper.make_graph(then, "then", [], info[:1]), "else_branch": helper.make_graph(other, "else", [], info[1:])}


class Draft:
    """A graph that grows from its last value, whose shape without the batch is known."""

    def __init__(self, rng: np.random.Generator, kind: str, shape: list[int], batch: bool) -> None:
        self.rng, self.kind, self.shape, self.batch = rng, kind, list(shape), batch
        self.value, self.nodes, self.weights, self.count = "x", [], [], 0

    def add(self, op: str, inputs: list[str], outputs: int = 1, **attributes) -> list[str]:
        names = [f"v{self.count + i}" for i in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op.lower()}_{len(self.nodes)}", **attributes))
        self.value = names[0]
        return names

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.weight(np.array(numbers, np.int64))

    def random(self, *shape: int) -> str:
        numpy_type = KINDS[self.kind][1]
        if self.kind in ("FP16", "FP32", "FP64"):
            return self.weight((self.rng.standard_normal(shape) * 0.5).astype(numpy_type))
        if self.kind in ("BYTES", "BF16"):
            array = values(self.rng, self.kind, list(shape))
            name = f"w{len(self.weights)}"
            words = [word.encode() for word in array.reshape(-1)] if self.kind == "BYTES" else array.tobytes()
            self.weights.append(helper.make_tensor(name, KINDS[self.kind][0], shape, words, raw=self.kind == "BF16"))
            return name
        return self.weight(self.rng.integers(0, 3, shape).astype(numpy_type))

    @property
    def first(self) -> int:
        """Index of the first axis behind the batch."""
        return 1 if self.batch else 0

    def axis(self) -> int:
        return int(self.rng.integers(0, len(self.shape)))

    def step(self) -> None:
        """Adds one random operator that keeps rows apart."""
        choices = [self.unary]
        if self.kind not in ("BYTES", "BF16", "BOOL"):
            choices += [self.binary, self.binary]
        if self.kind == "BOOL":
            choices += [self.logic]
        if self.kind != "BYTES":
            choices += [self.cast]
        if self.shape:
            choices += [self.reshape, self.transpose, self.concat, self.slice, self.unsqueeze, self.split, self.gather]
            if not self.batch:
                choices += [self.concat_constant]
            if self.kind in CHOOSES:
                choices += [self.choose, self.choose]
            if self.kind not in ("BF16", "FP32"):
                choices += [self.expand, self.tile]
        if self.shape and self.kind == "FP32":
            choices += [self.matmul, self.softmax, self.norm, self.reduce, self.where, self.pad, self.expand, self.cumsum, self.linear, self.clip] * 2
            if len(self.shape) == 3 and self.batch:
                choices += [self.conv] * 8
        self.rng.choice(choices)()

    def unary(self) -> None:
        names = {"FP32": FLOAT_UNARY, "FP64": DOUBLE_UNARY, "FP16": HALF_UNARY, "BOOL": ["Not", "Identity"]}
        self.add(str(self.rng.choice(names.get(self.kind, ["Identity"]))), [self.value])

    def cast(self) -> None:
        self.add("Cast", [self.value], to=T.INT32 if self.kind == "FP32" else T.FLOAT)
        self.add("Cast", [self.value], to=KINDS[self.kind][0])

    def choose(self) -> None:
        condition = self.weight(self.rng.random(self.shape[-1:]) < 0.5)
        self.add("Where", [condition, self.value, self.random(*self.shape[-1:])])

    def tile(self) -> None:
        if self.shape[-1] < 7:
            self.add("Tile", [self.value, self.ints(*[1] * (self.first + len(self.shape) - 1), 2)])
            self.shape[-1] *= 2

    def concat_constant(self) -> None:
        axis = self.axis()
        self.add("Concat", [self.value, self.random(*[1 if i == axis else d for i, d in enumerate(self.shape)])], axis=axis)
        self.shape[axis] += 1

    def binary(self) -> None:
        if self.kind in SMALL:
            self.add(str(self.rng.choice(["Add", "Mul"])), [self.value, self.random(*self.shape[-1:])])
            return
        self.add(str(self.rng.choice(BINARY)), [self.value, self.random(*self.shape[-1:])])

    def logic(self) -> None:
        self.add(str(self.rng.choice(["And", "Or", "Xor"])), [self.value, self.random(*self.shape[-1:])])

    def reshape(self) -> None:
        size = int(np.prod(self.shape))
        halves = [d for d in (1, 2, 3, 4) if size % d == 0]
        part = int(self.rng.choice(halves))
        self.shape = [part, size // part]
        self.add("Reshape", [self.value, self.ints(*([0] if self.batch else []), part, -1)])

    def transpose(self) -> None:
        order = self.rng.permutation(len(self.shape))
        perm = ([0] if self.batch else []) + [int(i) + self.first for i in order]
        self.shape = [self.shape[i] for i in order]
        self.add("Transpose", [self.value], perm=perm)

    def concat(self) -> None:
        axis = self.axis()
        if self.shape[axis] < 12:
            self.shape[axis] *= 2
            self.add("Concat", [self.value, self.value], axis=axis + self.first)

    def slice(self) -> None:
        axis = self.axis()
        if self.shape[axis] > 1:
            self.shape[axis] -= 1
            self.add("Slice", [self.value, self.ints(1), self.ints(2**31), self.ints(axis + self.first)])

    def unsqueeze(self) -> None:
        if len(self.shape) < 4:
            self.add("Unsqueeze", [self.value, self.ints(self.first)])
            self.add("Squeeze", [self.value, self.ints(self.first)])

    def split(self) -> None:
        axis = self.axis()
        if self.shape[axis] % 2 == 0:
            self.shape[axis] //= 2
            halves = self.add("Split", [self.value], 2, axis=axis + self.first)
            if self.kind in ("FP32", "FP64", "INT32", "INT64"):
                self.add("Max", halves)
            else:
                self.value = halves[int(self.rng.integers(0, 2))]

    def gather(self) -> None:
        axis = self.axis()
        self.add("Gather", [self.value, self.ints(*range(self.shape[axis] - 1, -1, -1))], axis=axis + self.first)

    def matmul(self) -> None:
        self.add("MatMul", [self.value, self.random(self.shape[-1], 4)]) if self.batch or len(self.shape) > 1 else self.unary()
        if self.nodes[-1].op_type == "MatMul":
            self.shape[-1] = 4

    def linear(self) -> None:
        if self.batch and len(self.shape) == 1:
            self.add("Gemm", [self.value, self.random(self.shape[0], 5), self.random(5)])
            self.shape = [5]

    def softmax(self) -> None:
        self.add(str(self.rng.choice(["Softmax", "LogSoftmax"])), [self.value], axis=-1)

    def norm(self) -> None:
        width = self.shape[-1]
        self.add("LayerNormalization", [self.value, self.random(width), self.random(width)], axis=-1)

    def reduce(self) -> None:
        axis = self.axis()
        op = str(self.rng.choice(["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"]))
        self.add(op, [self.value], axes=[axis + self.first], keepdims=1)
        self.shape[axis] = 1

    def where(self) -> None:
        before = self.value
        condition = self.add("Greater", [before, self.random(*self.shape[-1:])])[0]
        self.add("Where", [condition, before, self.random(*self.shape[-1:])])

    def pad(self) -> None:
        if self.shape[-1] < 12:
            rank = len(self.shape) + self.first
            self.add("Pad", [self.value, self.ints(*([0] * (2 * rank - 1)), 1)])
            self.shape[-1] += 1

    def expand(self) -> None:
        if 1 in self.shape:
            target = [1] * self.first + [2 if d == 1 else d for d in self.shape]
            self.add("Expand", [self.value, self.ints(*target)])
            self.shape = target[self.first :]

    def cumsum(self) -> None:
        self.add("CumSum", [self.value, self.weight(np.array(self.axis() + self.first, np.int64))])

    def clip(self) -> None:
        low, high = (self.weight(np.array(x, np.float32)) for x in (-1.0, 1.5))
        self.add("Clip", [self.value, low, high])

    def conv(self) -> None:
        self.add("Conv", [self.value, self.random(3, self.shape[0], 1, 1)])
        self.shape[0] = 3
        if self.rng.random() < 0.3:
            self.add("GlobalAveragePool", [self.value])
            self.shape[1:] = [1] * len(self.shape[1:])

    def mix(self, which: str) -> None:
        """An operator over the rows: such a model is never batched."""
        before = self.value
        if which == "DynamicQuantizeLinear":
            quantised = self.add("DynamicQuantizeLinear", [before], 3)
            self.add("DequantizeLinear", quantised)
        elif which == "Softmax":
            self.add("Softmax", [before], axis=0)
        elif which == "ReduceSum":
            total = self.add("ReduceSum", [before, self.ints(0)], keepdims=1)[0]
            self.add("Add", [before, total])
        else:
            self.add("If", [self.weight(np.array(True))], **branches(before, 0, ["batch", *self.shape]))

    def model(self, inputs: list[int]) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("Identity", [self.value], ["y"], name="last"))
        batch = ["batch"] if self.batch else []
        elem = KINDS[self.kind][0]
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", elem, batch + inputs)],
            [helper.make_tensor_value_info("y", elem, batch + self.shape)],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="xebec")


def values(rng: np.random.Generator, kind: str, shape: list[int]) -> np.ndarray:
    numpy_type = KINDS[kind][1]
    if kind in ("FP16", "FP32", "FP64"):
        return np.asarray(rng.standard_normal(shape)).astype(numpy_type)
    if kind == "BOOL":
        return np.asarray(rng.random(shape) < 0.5)
    if kind == "BYTES":
        words = np.array(["", "a", "fraud", "ü\n\0x", "long " * 9], np.object_)
        return np.array(words[rng.integers(0, len(words), shape)], np.object_).reshape(shape)
    if kind == "BF16":
        return np.asarray(rng.integers(0, 0x4000, shape)).astype(np.uint16)
    return np.asarray(rng.integers(0, 9, shape)).astype(numpy_type)


def wire(array: np.ndarray) -> bytes:
    if array.dtype == np.object_:
        parts = []
        for element in array.reshape(-1):
            raw = element.encode() if isinstance(element, str) else bytes(element)
            parts.append(len(raw).to_bytes(4, "little") + raw)
        return b"".join(parts)
    return np.ascontiguousarray(array).tobytes()


class Blob:
    """Tensors one after another."""

    def __init__(self) -> None:
        self.data = bytearray()

    def put(self, array: np.ndarray) -> dict:
        raw = wire(array)
        place = {"shape": list(array.shape), "offset": len(self.data), "length": len(raw)}
        self.data += raw
        return place


def one(rng: np.random.Generator, number: int) -> tuple[Draft, list[int], str | None]:
    kinds = list(KINDS)
    # Every datatype in turn, and FP32, where most operators are, every other time.
    kind = "FP32" if number % 2 else kinds[(number // 2) % len(kinds)]
    batch = number % 5 != 0
    rank = (number // 3) % 6
    rank = max(rank, 1) if batch else rank
    shape = [int(d) for d in rng.integers(1, 5, rank - batch)]
    draft = Draft(rng, kind, shape, batch)
    for _ in range(int(rng.integers(1, 6))):
        draft.step()
    mixes = None
    if kind == "FP32" and batch and shape and number % 4 == 3:
        # Every kind of mixing in turn; a random one would leave some out.
        mixes = MIXES[number // 4 % 4]
        draft.mix(mixes)
    return draft, shape, mixes


def twin(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same of UINT16 for BF16, which numpy does not have: what such a model does only moves bits."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = T.UINT16
    for weight in model.graph.initializer:
        weight.data_type = T.UINT16 if weight.data_type == T.BFLOAT16 else weight.data_type
    for node in model.graph.node:
        if node.op_type == "Cast":
            node.op_type = "Identity"
            del node.attribute[:]
    return model


OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = OPTIONS.inter_op_num_threads = 1
OPTIONS.log_severity_level = 4


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), OPTIONS)


def served(seed: int, number: int, folder: Path, blob: Blob) -> dict:
    """Makes one model of known nature, with its requests."""
    rng = np.random.default_rng([seed, number])
    draft, shape, mixes = one(rng, number)
    made = draft.model(shape)
    name = f"random-{number}"
    (folder / f"{name}.onnx").write_bytes(made.SerializeToString(deterministic=True))
    session = session_of(twin(made) if draft.kind == "BF16" else made)
    requests = []
    for rows in ROWS if draft.batch else [1] * 3:
        x = values(rng, draft.kind, ([rows] if draft.batch else []) + shape)
        y = session.run(["y"], {"x": x})[0]
        requests.append({"x": blob.put(x), "y": blob.put(np.asarray(y))})
    return {
        "name": name,
        "file": f"{name}.onnx",
        "datatype": draft.kind,
        "rank": len(shape) + draft.batch,
        "batch": draft.batch,
        "mixes": mixes,
        "operators": sorted({node.op_type for node in made.graph.node}),
        "requests": requests,
    }


def configured(model: dict, folder: Path) -> dict:
    """The same model once more, with a configuration that asks for batches."""
    name = f"configured-{model['mixes'].lower()}"
    version = folder / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.onnx").write_bytes((folder / model["file"]).read_bytes())
    (folder / name / "config.pbtxt").write_text("max_batch_size: 8\ndynamic_batching { }\n")
    return {**model, "name": name, "file": f"{name}/1/model.onnx"}


# Stands for the batch where shapes are worked out. No other extent is a multiple of it.
MANY = 7


class Hostile:
    """A graph that grows from its last value by steps that may mix rows."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.fixed = [int(d) for d in rng.choice([1, 2, 3, 4], int(rng.integers(1, 4)))]
        self.shape = [MANY, *self.fixed]
        self.value, self.nodes, self.weights = "x", [], []
        self.others: dict[str, list[int]] = {}
        self.outputs: list[str] = []
        self.domains = [helper.make_opsetid("", int(rng.choice([14, 17])))]

    # What steps are made of.

    def add(self, op: str, inputs: list[str], outputs: int = 1, **attributes) -> str:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op.lower()}_{len(self.nodes)}", **attributes))
        return names[0]

    def go(self, op: str, inputs: list[str], shape: list[int], **attributes) -> None:
        self.value, self.shape = self.add(op, inputs, **attributes), list(shape)

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.weight(np.array(numbers, np.int64))

    def reals(self, *shape: int) -> str:
        return self.weight(self.rng.standard_normal(shape).astype(np.float32))

    def coin(self, chance: float = 0.5) -> bool:
        return bool(self.rng.random() < chance)

    def pick(self, things: list):
        return things[int(self.rng.integers(0, len(things)))]

    def axis(self) -> int:
        return int(self.rng.integers(0, len(self.shape)))

    def either(self, axis: int) -> int:
        """The axis, counted from one end or the other."""
        return axis - len(self.shape) if self.coin() else axis

    def extent(self, value: str, axis: int) -> str:
        """A list of one number: the extent of a value, by one of the ways that exporters write it."""
        shape = self.add("Shape", [value])
        if self.coin():
            return self.add("Gather", [shape, self.ints(axis)])
        if self.coin():
            return self.add("Slice", [shape, self.ints(axis), self.ints(axis + 1)])
        scalar = self.add("Gather", [shape, self.weight(np.array(axis, np.int64))])
        if self.coin(0.3):
            scalar = self.add("Cast", [self.add("Cast", [scalar], to=T.INT32)], to=T.INT64)
        return self.add("Unsqueeze", [scalar, self.ints(0)])

    def folded(self, number: int) -> str:
        """A list of one number, computed from constants in a way that is easily computed wrong."""
        way = int(self.rng.integers(0, 10))
        other = int(self.rng.integers(1, 4))
        if way == 0:
            return self.add("Sub", [self.ints(number + other), self.ints(other)])
        if way == 1:
            return self.add("Div", [self.ints(number * other + other - 1), self.ints(other)])
        if way == 2 and number <= 1:
            # What is not 0 is true, and true is 1.
            odd = self.add("Cast", [self.ints(number * other)], to=T.BOOL)
            return self.add("Cast", [odd], to=T.INT64)
        if way == 3:
            half = self.add("Div", [self.weight(np.array([1], np.float32)), self.weight(np.array([2], np.float32))])
            whole = self.add("Mul", [half, self.weight(np.array([2.0 * number], np.float32))])
            return self.add("Cast", [whole], to=T.INT64)
        if way == 4:
            # A column times a row is a grid of four numbers, not two, and the second is of the column's first.
            grid = self.add("Mul", [self.weight(np.array([[number], [other - 1]], np.int64)), self.ints(1, 1)])
            flat = self.add("Reshape", [grid, self.ints(-1)])
            return self.add("Gather", [flat, self.ints(1)])
        if way == 5:
            wraps = self.add("Cast", [self.ints(number + 256)], to=T.UINT8)
            return self.add("Cast", [wraps], to=T.INT64)
        if way == 6:
            scalar = self.add("Squeeze", [self.ints(number)])
            return self.add("Unsqueeze", [self.add("Mul", [scalar, self.weight(np.array(1, np.int64))]), self.ints(0)])
        if way == 7:
            return self.add("Gather", [self.ints(*range(5)), self.ints(number)])
        if way == 8:
            return self.add("Max", [self.ints(number), self.add("Neg", [self.ints(other)])])
        # Wraps to 0, and is not 2 to the power of 32.
        small = self.add("Mul", [self.weight(np.array([65536], np.int32)), self.weight(np.array([65536], np.int32))])
        one_or_none = self.add("Div", [self.add("Cast", [small], to=T.INT64), self.ints(2**32)])
        return self.add("Add", [one_or_none, self.ints(number)])

    # Steps.

    def reduce(self) -> None:
        count = int(self.rng.integers(1, len(self.shape) + 1))
        axes = sorted(int(a) for a in self.rng.permutation(len(self.shape))[:count])
        self.reduced(axes, self.coin())

    def reduced(self, axes: list[int], keep: bool) -> None:
        shape = [1 if i in axes else d for i, d in enumerate(self.shape) if keep or i not in axes]
        given = [self.either(a) for a in axes]
        if self.coin():
            self.go("ReduceSum", [self.value, self.ints(*given)], shape, keepdims=int(keep))
        else:
            self.go(self.pick(["ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"]), [self.value], shape, axes=given, keepdims=int(keep))

    def softmax(self) -> None:
        self.go(self.pick(["Softmax", "LogSoftmax"]), [self.value], self.shape, axis=self.either(self.axis()))

    def cumulate(self) -> None:
        self.go("CumSum", [self.value, self.weight(np.array(self.either(self.axis()), np.int64))], self.shape)

    def concat(self) -> None:
        axis = self.axis()
        other = self.add("Neg", [self.value]) if self.coin() else self.value
        shape = [2 * d if i == axis else d for i, d in enumerate(self.shape)]
        self.go("Concat", [self.value, other], shape, axis=self.either(axis))

    def cut(self) -> None:
        axis = self.axis()
        start, end, step = self.pick([(0, 2**31, 2), (-1, -(2**31), -1), (1, 2**31, 1), (0, 1, 1), (-1, 2**31, 1)])
        shape = list(self.shape)
        shape[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
        if shape[axis] and (step == -1 or self.shape[axis] % MANY or self.coin(0.3)):
            shape[axis] = self.shape[axis] if step == -1 else shape[axis]
            self.go("Slice", [self.value, self.ints(start), self.ints(end), self.ints(self.either(axis)), self.ints(step)], shape)

    def gather(self) -> None:
        axis = self.axis()
        top = 1 if self.shape[axis] % MANY == 0 else self.shape[axis]
        if self.coin() and len(self.shape) > 1:
            index = self.weight(np.array(self.rng.integers(0, top), np.int64))
            shape = [d for i, d in enumerate(self.shape) if i != axis]
        else:
            count = int(self.rng.integers(1, 4))
            index = self.ints(*(int(i) for i in self.rng.integers(0, top, count)))
            shape = [count if i == axis else d for i, d in enumerate(self.shape)]
        self.go("Gather", [self.value, index], shape, axis=self.either(axis))

    def transpose(self) -> None:
        order = [int(i) for i in self.rng.permutation(len(self.shape))]
        self.go("Transpose", [self.value], [self.shape[i] for i in order], perm=order)

    def reshape(self) -> None:
        """To a shape that is computed from the value's own: axes merged, split, or named in another order."""
        places = list(range(len(self.shape)))
        if self.coin(0.3):
            places = [int(i) for i in self.rng.permutation(places)]
        groups = [[place] for place in places]
        if len(groups) > 1 and self.coin(0.6):
            at = int(self.rng.integers(0, len(groups) - 1))
            groups[at : at + 2] = [groups[at] + groups[at + 1]]
        parts, shape = [], []
        rest = self.pick([None, *range(len(groups))])
        for index, group in enumerate(groups):
            shape.append(int(np.prod([self.shape[i] for i in group])))
            if index == rest:
                parts.append(self.ints(-1))
                continue
            extents = [self.extent(self.value, i) if self.shape[i] % MANY == 0 or self.coin() else self.ints(self.shape[i]) for i in group]
            parts.append(extents[0] if len(extents) == 1 else self.add("Mul", extents))
        if shape[-1] % 2 == 0 and rest is None and self.coin():
            two = self.ints(2)
            parts[-1:] = [two, self.add("Div", [parts[-1], two])]
            shape[-1:] = [2, shape[-1] // 2]
        self.go("Reshape", [self.value, self.add("Concat", parts, axis=0)], shape)

    def fold(self) -> None:
        """Works over an axis that constants come to, with what may be the batch at axis 1 or not."""
        swap = [1, 0, *range(2, len(self.shape))]
        turn = len(self.shape) > 1 and self.coin()
        if turn:
            self.go("Transpose", [self.value], [self.shape[i] for i in swap], perm=swap)
        self.over(1 if turn and self.coin() else self.axis())
        if turn:
            self.go("Transpose", [self.value], [self.shape[i] for i in swap], perm=swap)

    def over(self, axis: int) -> None:
        folded = self.folded(axis)
        if self.coin():
            before = self.value
            total = self.add("ReduceSum", [before, folded], keepdims=1)
            self.go("Sub", [before, total], self.shape)
        elif self.coin():
            self.go("CumSum", [self.value, folded], self.shape)
        else:
            end = self.ints(2**31)
            self.go("Slice", [self.value, self.ints(-1), self.add("Neg", [end]), folded, self.ints(-1)], self.shape)

    def moved(self) -> None:
        """With two axes exchanged and back."""
        if len(self.shape) < 2:
            return
        a, b = (int(i) for i in self.rng.permutation(len(self.shape))[:2])
        order = list(range(len(self.shape)))
        order[a], order[b] = order[b], order[a]
        self.go("Transpose", [self.value], [self.shape[i] for i in order], perm=order)
        rank = len(self.shape)
        self.pick([self.softmax, self.cumulate, self.fold, self.reverse, self.branch, lambda: self.reduced([self.axis()], True)])()
        if len(self.shape) == rank:
            self.go("Transpose", [self.value], [self.shape[i] for i in order], perm=order)

    def reverse(self) -> None:
        axis = self.either(self.axis())
        self.go("Slice", [self.value, self.ints(-1), self.ints(-(2**31)), self.ints(axis), self.ints(-1)], self.shape)

    def shared(self) -> None:
        """With a second input whose axes have the names of the first's, and in half of the cases not their extents."""
        if "z" not in self.others:
            self.others["z"] = [d if self.coin(0.3) or d % 2 else d // 2 for d in self.fixed]
            self.others["z"] = [1 if self.coin(0.3) else d for d in self.others["z"]]
        axis = int(self.rng.integers(0, len(self.others["z"])))
        extent = self.extent("z", axis + 1)
        if self.coin() and len(self.shape) > 1:
            swap = [1, 0, *range(2, len(self.shape))]
            self.go("Transpose", [self.value], [self.shape[i] for i in swap], perm=swap)
        if self.coin() and self.shape == [MANY, *self.others["z"]]:
            self.go(self.pick(["Add", "Mul"]), [self.value, "z"], self.shape)
        elif self.coin():
            rest = int(np.prod(self.shape)) // self.others["z"][axis]
            self.go("Reshape", [self.value, self.add("Concat", [extent, self.ints(-1)], axis=0)], [self.others["z"][axis], rest])
        else:
            rest = int(np.prod(self.shape)) // self.others["z"][axis] // MANY
            rows = self.extent("x", 0)
            self.go("Reshape", [self.value, self.add("Concat", [rows, extent, self.ints(-1)], axis=0)], [MANY, self.others["z"][axis], rest])

    def einsum(self) -> None:
        if len(self.shape) > 3:
            return
        if len(self.shape) < 3 and self.coin(0.3):
            self.go("Unsqueeze", [self.value, self.ints(len(self.shape))], [*self.shape, 1])
        own = "abc"[: len(self.shape)]
        sizes = dict(zip(own, self.shape))
        if self.coin(0.3):
            other, term = self.value, "".join(self.pick([own, own.translate(str.maketrans("a", "d"))]))
            sizes["d"] = sizes["a"]
        else:
            term = self.pick([own[-1], own[-1], own[-1] + "e", own[-2:]] if self.shape[-1] == 1 else [own[-1], own[-1] + "e", own[-2:], "e"])
            sizes["e"] = 3
            dims = [1 if sizes[letter] % MANY == 0 else sizes[letter] for letter in term]
            # An extent of 1 is broadcast to the other's.
            wide = term[0] in own and sizes[term[0]] == 1
            dims[0] = 5 if wide else dims[0]
            sizes[term[0]] = dims[0] if wide else sizes[term[0]]
            other = self.reals(*dims)
        letters = sorted(set(own + term))
        kept = [letter for letter in letters if self.coin(0.8)] or letters
        kept = [kept[int(i)] for i in self.rng.permutation(len(kept))]
        self.go("Einsum", [self.value, other], [sizes[letter] for letter in kept], equation=f"{own},{term}->{''.join(kept)}")

    def branch(self) -> None:
        self.go("If", [self.weight(np.array(True))], self.shape, **branches(self.value, self.axis(), None))

    def constant(self) -> None:
        """A weight that broadcasts, or has as many rows as only some runs have."""
        dims = [1 if d % MANY == 0 or self.coin(0.3) else d for d in self.shape]
        if self.coin(0.3):
            dims = [2 if d % MANY == 0 else w for d, w in zip(self.shape, dims)]
        self.go(self.pick(["Add", "Mul"]), [self.value, self.reals(*dims[int(self.rng.integers(0, len(dims))) :])], self.shape)

    def matmul(self) -> None:
        if len(self.shape) < 2:
            return
        way = int(self.rng.integers(0, 3))
        if way == 0 and self.shape[-1] % MANY:
            self.go("MatMul", [self.value, self.reals(self.shape[-1], 3)], [*self.shape[:-1], 3])
        elif way == 1 and self.shape[-2] % MANY:
            self.go("MatMul", [self.reals(3, self.shape[-2]), self.value], [*self.shape[:-2], 3, self.shape[-1]])
        else:
            order = [*range(len(self.shape) - 2), len(self.shape) - 1, len(self.shape) - 2]
            turned = self.add("Transpose", [self.value], perm=order)
            self.go("MatMul", [self.value, turned], [*self.shape[:-1], self.shape[-2]])

    def quantise(self) -> None:
        if self.coin(0.3):
            quantised = self.add("DynamicQuantizeLinear", [self.value], 3)
            names = list(self.nodes[-1].output)
            self.go("DequantizeLinear", [quantised, *names[1:]], self.shape)
            return
        axis = self.axis()
        count = 2 if self.shape[axis] % MANY == 0 else self.shape[axis]
        scale = self.weight(self.rng.random(count).astype(np.float32) + np.float32(0.1))
        zero = self.weight(np.zeros(count, np.int8))
        whole = self.add("QuantizeLinear", [self.value, scale, zero], axis=axis)
        self.go("DequantizeLinear", [whole, scale, zero], self.shape, axis=axis)

    def sized(self) -> None:
        count = self.extent(self.value, self.axis())
        self.go("Div", [self.value, self.add("Cast", [count], to=T.FLOAT)], self.shape)

    def squeeze(self) -> None:
        ones = [i for i, d in enumerate(self.shape) if d == 1]
        if ones and len(self.shape) > 1 and self.coin():
            axis = self.pick(ones)
            self.go("Squeeze", [self.value, self.ints(self.either(axis))], [d for i, d in enumerate(self.shape) if i != axis])
        else:
            axis = int(self.rng.integers(0, len(self.shape) + 1))
            self.go("Unsqueeze", [self.value, self.ints(axis)], [*self.shape[:axis], 1, *self.shape[axis:]])

    def column(self) -> None:
        """By indices that a squeeze without axes makes a scalar, or does not."""
        axis = self.axis()
        count = int(self.rng.integers(1, 3))
        top = 1 if self.shape[axis] % MANY == 0 else self.shape[axis]
        index = self.add("Squeeze", [self.ints(*(int(i) for i in self.rng.integers(0, top, count)))])
        shape = [d for i, d in enumerate(self.shape) if i != axis] if count == 1 else [count if i == axis else d for i, d in enumerate(self.shape)]
        if shape:
            self.go("Gather", [self.value, index], shape, axis=axis)

    def expand(self) -> None:
        if self.coin():
            axis = self.axis()
            repeats = [2 if i == axis else 1 for i in range(len(self.shape))]
            self.go("Tile", [self.value, self.ints(*repeats)], [d * r for d, r in zip(self.shape, repeats)])
            return
        parts = [self.extent(self.value, i) if d != 1 else self.pick([self.ints(3), self.extent("x", 0)]) for i, d in enumerate(self.shape)]
        first = self.extent("x", 0)
        shape = [MANY, *(d if d != 1 else 3 for d in self.shape)]
        parts = [self.ints(3) if d == 1 else part for d, part in zip(self.shape, parts)]
        if self.coin(0.3):
            self.go("Expand", [self.value, self.add("Concat", [first, *parts], axis=0)], shape)
        else:
            self.go("Expand", [self.value, self.add("Concat", parts, axis=0)], shape[1:])

    def pad(self) -> None:
        axis, pads = self.axis(), [0] * (2 * len(self.shape))
        pads[axis] = 1
        shape = [d + (i == axis) for i, d in enumerate(self.shape)]
        if self.shape[axis] % MANY or self.coin(0.3):
            self.go("Pad", [self.value, self.ints(*pads)], shape)

    def flatten(self) -> None:
        axis = int(self.rng.integers(0, len(self.shape) + 1))
        self.go("Flatten", [self.value], [int(np.prod(self.shape[:axis])), int(np.prod(self.shape[axis:]))], axis=axis)

    def split(self) -> None:
        axis = self.axis()
        if self.shape[axis] % 2 == 0:
            half = self.add("Split", [self.value], 2, axis=self.either(axis))
            other = self.nodes[-1].output[1]
            self.go("Sub", [half, other], [d // 2 if i == axis else d for i, d in enumerate(self.shape)])

    def best(self) -> None:
        axis = self.axis()
        self.go("TopK", [self.value, self.ints(1)], [1 if i == axis else d for i, d in enumerate(self.shape)], outputs=2, axis=self.either(axis))

    def triangle(self) -> None:
        if len(self.shape) >= 2:
            self.go("Trilu", [self.value], self.shape, upper=int(self.coin()))

    def resize(self) -> None:
        axis = self.axis()
        scales = np.ones(len(self.shape), np.float32)
        scales[axis] = 2
        roi = self.weight(np.array([self.pick([0.0, 1.0]) for _ in scales] + [1.0 for _ in scales], np.float32))
        if self.coin(0.3):
            roi = self.weight(np.ones(len(scales), np.float32))
        mode = self.pick(["half_pixel", "asymmetric", "align_corners", "tf_crop_and_resize"])
        shape = [d * 2 if i == axis else d for i, d in enumerate(self.shape)]
        self.go("Resize", [self.value, roi, self.weight(scales)], shape, mode=self.pick(["nearest", "linear"]), coordinate_transformation_mode=mode)

    def noise(self) -> None:
        """Random numbers, in a loop where only a look inside shows them."""
        body = helper.make_graph(
            [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("RandomUniform", [], ["drawn"], shape=[1])],
            "body",
            [helper.make_tensor_value_info("i", T.INT64, []), helper.make_tensor_value_info("go_in", T.BOOL, [])],
            [helper.make_tensor_value_info("go_out", T.BOOL, []), helper.make_tensor_value_info("drawn", T.FLOAT, [1])],
        )
        drawn = self.add("Loop", [self.weight(np.array(2, np.int64)), self.weight(np.array(True))], body=body)
        sum_of_it = self.add("ReduceSum", [drawn, self.ints(0, 1)], keepdims=0)
        # A range of one number has a rank that is known whatever it starts from.
        end = self.add("Add", [sum_of_it, self.weight(np.array(0.5, np.float32))])
        self.go("Add", [self.value, self.add("Range", [sum_of_it, end, self.weight(np.array(1, np.float32))])], self.shape)

    def attend(self) -> None:
        """Attention whose mask is as long as the batch, or means something else."""
        if "m" in self.others or self.shape[0] != MANY:
            return
        self.go("Reshape", [self.value, self.ints(0, 1, -1)], [MANY, 1, int(np.prod(self.shape[1:]))])
        width = self.shape[-1]
        sequence = self.add("Concat", [self.value, self.add("Neg", [self.value]), self.add("Tanh", [self.value])], axis=1)
        columns = int(self.rng.integers(1, 3))
        self.others["m"] = [columns]
        mask = self.add("Reshape", ["m", self.ints(-1)])
        inputs = [sequence, self.reals(width, 3 * width), self.reals(3 * width), mask]
        self.go("Attention", inputs, [MANY, 3, width], domain="com.microsoft", num_heads=1)
        self.domains = [*self.domains[:1], helper.make_opsetid("com.microsoft", 1)]

    def through(self) -> None:
        """Outputs that are inputs, and values that are two outputs."""
        self.outputs += self.pick([["x"], [self.add("Identity", [self.value])], [self.value], ["x", self.add("Relu", ["x"])]])

    STEPS = [
        reduce, softmax, cumulate, concat, cut, gather, transpose, reshape, fold, moved, shared, einsum, branch, constant,
        matmul, quantise, sized, squeeze, column, expand, pad, flatten, split, best, triangle, resize, noise, attend, through,
    ]

    def finish(self) -> None:
        """Brings what may be the batch to the front, as a graph that hides what it did would."""
        places = [i for i, d in enumerate(self.shape) if d % MANY == 0]
        if self.coin(0.3):
            # Whatever the axes are: who has one of them wrong takes this for rows.
            if self.coin():
                self.go("Transpose", [self.value], self.shape[::-1])
            elif self.coin() and len(self.shape) > 1:
                order = [1, 0, *range(2, len(self.shape))]
                self.go("Transpose", [self.value], [self.shape[i] for i in order], perm=order)
            if self.coin():
                self.go("Reshape", [self.value, self.add("Concat", [self.extent("x", 0), self.ints(-1)], axis=0)], [MANY, 1])
            else:
                flat = [int(np.prod(self.shape))]
                self.go("Reshape", [self.value, self.ints(-1)], flat)
                self.go("Reshape", [self.value, self.add("Concat", [self.extent("x", 0), self.ints(-1)], axis=0)], [MANY, 1])
        elif places and places[0]:
            order = [places[0], *(i for i in range(len(self.shape)) if i != places[0])]
            self.go("Transpose", [self.value], [self.shape[i] for i in order], perm=order)
        if not self.shape or self.shape[0] != MANY or self.coin(0.3):
            rows = self.extent("x", 0)
            self.go("Reshape", [self.value, self.add("Concat", [rows, self.ints(-1)], axis=0)], [MANY, 1])
        self.nodes.append(helper.make_node("Identity", [self.value], ["y"]))

    def model(self) -> onnx.ModelProto:
        shapes = {"x": self.fixed, **self.others}
        infos = []
        for name, fixed in shapes.items():
            # The names are the same in all inputs, which says nothing: nobody checks them.
            named = "z" in self.others or self.coin()
            dims = [f"n{i}" if named else d for i, d in enumerate(fixed)]
            infos.append(helper.make_tensor_value_info(name, T.INT32 if name == "m" else T.FLOAT, ["batch", *dims]))
        outputs = [helper.make_tensor_value_info(name, T.FLOAT, None) for name in dict.fromkeys(["y", *self.outputs])]
        graph = helper.make_graph(self.nodes, "hostile", infos, outputs, self.weights)
        return helper.make_model(graph, opset_imports=self.domains, ir_version=8, producer_name="xebec")

    def feeds(self, rows: int) -> dict[str, np.ndarray]:
        feeds = {"x": self.rng.standard_normal([rows, *self.fixed]).astype(np.float32)}
        if "z" in self.others:
            feeds["z"] = self.rng.standard_normal([rows, *self.others["z"]]).astype(np.float32)
        if "m" in self.others:
            feeds["m"] = self.rng.integers(1, 3, [rows, *self.others["m"]]).astype(np.int32)
        return feeds


def hostile(seed: int, number: int, folder: Path, blob: Blob) -> dict:
    """Makes one graph that runs, with the answers to rows alone and together."""
    for attempt in range(200):
        rng = np.random.default_rng([seed, 1, number, attempt])
        draft = Hostile(rng)
        steps = [Hostile.STEPS[int(i)] for i in rng.integers(0, len(Hostile.STEPS), int(rng.integers(0, 3)))]
        # Every kind of step in turn, anywhere between others.
        steps.insert(int(rng.integers(0, len(steps) + 1)), Hostile.STEPS[number % len(Hostile.STEPS)])
        try:
            for step in steps:
                before = len(draft.nodes)
                step(draft)
                if not draft.shape or (len(draft.nodes) == before and step is not Hostile.through):
                    raise ValueError("the step cannot be done here")
            draft.finish()
            made = draft.model()
            session = session_of(made)
            cases = [compared(session, draft.feeds(rows), rows) for rows in (2, 3)]
        except Exception:
            # Most of what is drawn does not run at all. What runs is what counts.
            continue
        name = f"hostile-{number}.onnx"
        (folder / name).write_bytes(made.SerializeToString(deterministic=True))
        put = lambda arrays: [blob.put(array) for array in arrays]
        return {
            "file": name,
            "steps": sorted({step.__name__ for step in steps}),
            "cases": [{"together": put(together), "alone": [put(row) for row in alone]} for together, alone in cases],
        }
    raise SystemExit(f"seed {seed}: no graph with {Hostile.STEPS[number % len(Hostile.STEPS)].__name__} runs")


def compared(session: onnxruntime.InferenceSession, feeds: dict, rows: int) -> tuple[list, list]:
    together = session.run(None, feeds)
    alone = [session.run(None, {name: value[row : row + 1] for name, value in feeds.items()}) for row in range(rows)]
    return together, alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--hostile", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    repository, hostiles = arguments.folder / "repository", arguments.folder / "hostile"
    for folder in (repository, hostiles):
        folder.mkdir(parents=True, exist_ok=True)
    blob = Blob()
    models = [served(arguments.seed, number, repository, blob) for number in range(arguments.count)]
    first = {model["mixes"]: model for model in reversed(models) if model["mixes"]}
    manifest = {
        "seed": arguments.seed,
        "models": models,
        "configured": [configured(model, repository) for model in first.values()],
        "hostile": [hostile(arguments.seed, number, hostiles, blob) for number in range(arguments.hostile)],
    }
    (arguments.folder / "tensors.bin").write_bytes(blob.data)
    (arguments.folder / "manifest.json").write_text(json.dumps(manifest))
    print(f"{len(models)} models, {len({o for m in models for o in m['operators']})} operators, {arguments.hostile} hostile graphs")


if __name__ == "__main__":
    main()
