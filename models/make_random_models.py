#!/usr/bin/env python3
"""Make random models with requests and onnxruntime's own answers, for the equality tests of e2e.

    python models/make_random_models.py FOLDER --count 200 --seed 11

FOLDER gets `repository/NAME.onnx`, `tensors.bin` and `manifest.json`: per model its operators, its requests and, for
each request alone, the answer of onnxruntime-python. The same seed makes the same files.
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
DOUBLE_UNARY = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Floor", "Ceil", "Round", "Identity"]
HALF_UNARY = ["Relu", "Neg", "Abs", "Identity", "Sigmoid", "Tanh"]
BINARY = ["Add", "Sub", "Mul"]
ROWS = [1, 2, 1, 3, 1, 1]


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
        if self.shape and self.kind != "BF16":
            choices += [self.reshape, self.transpose, self.concat, self.slice, self.unsqueeze]
            if self.kind not in ("UINT16", "UINT32", "UINT64", "INT16", "BOOL", "BYTES"):
                choices += [self.split, self.gather]
        if self.shape and self.kind == "FP32":
            choices += [self.matmul, self.softmax, self.norm, self.reduce, self.where, self.pad, self.expand, self.cumsum, self.linear, self.clip] * 2
            if len(self.shape) == 3 and self.batch:
                choices += [self.conv] * 8
        self.rng.choice(choices)()

    def unary(self) -> None:
        names = {"FP32": FLOAT_UNARY, "FP64": DOUBLE_UNARY, "FP16": HALF_UNARY, "BOOL": ["Not", "Identity"]}
        self.add(str(self.rng.choice(names.get(self.kind, ["Identity"]))), [self.value])

    def binary(self) -> None:
        if self.kind in ("UINT8", "UINT16", "INT8", "INT16"):
            self.add("Identity", [self.value])
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

    def mix(self, which: int) -> None:
        """An operator over the rows: such a model is never batched."""
        before = self.value
        if which == 0:
            quantised = self.add("DynamicQuantizeLinear", [before], 3)
            self.add("DequantizeLinear", quantised)
        elif which == 1:
            self.add("Softmax", [before], axis=0)
        elif which == 2:
            total = self.add("ReduceSum", [before, self.ints(0)], keepdims=1)[0]
            self.add("Add", [before, total])
        else:
            flag = self.weight(np.array(True))
            shape = ["batch", *self.shape]
            info = [helper.make_tensor_value_info(n, T.FLOAT, shape) for n in ("then_y", "else_y")]
            then = helper.make_graph(
                [helper.make_node("ReduceMax", [before], ["m"], axes=[0], keepdims=1), helper.make_node("Sub", [before, "m"], ["then_y"])],
                "then", [], [info[0]],
            )
            other = helper.make_graph([helper.make_node("Identity", [before], ["else_y"])], "else", [], [info[1]])
            self.add("If", [flag], then_branch=then, else_branch=other)

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


def one(rng: np.random.Generator, number: int) -> tuple[Draft, list[int], bool]:
    kinds = list(KINDS)
    # Every datatype in turn, and FP32, where most operators are, every other time.
    kind = "FP32" if number % 2 else kinds[(number // 2) % len(kinds)]
    batch = number % 5 != 0
    rank = (number // 3) % 6
    rank = max(rank, 1) if batch else rank
    shape = [int(d) for d in rng.integers(1, 5, rank - batch)]
    draft = Draft(rng, kind, shape, batch)
    mixes = kind == "FP32" and batch and bool(shape) and number % 7 == 3
    for _ in range(int(rng.integers(1, 6))):
        draft.step()
    if mixes:
        # Every kind of mixing in turn; a random one would leave some out.
        draft.mix(number // 14 % 4)
    return draft, shape, mixes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    (arguments.folder / "repository").mkdir(parents=True, exist_ok=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    blob, models = Blob(), []
    for number in range(arguments.count):
        rng = np.random.default_rng([arguments.seed, number])
        draft, shape, mixes = one(rng, number)
        made = draft.model(shape)
        path = arguments.folder / "repository" / f"random-{number}.onnx"
        path.write_bytes(made.SerializeToString(deterministic=True))
        session = None
        if draft.kind != "BF16":
            session = onnxruntime.InferenceSession(path, options)
        requests = []
        for rows in ROWS if draft.batch else [1] * 3:
            x = values(rng, draft.kind, ([rows] if draft.batch else []) + shape)
            # numpy has no bfloat16, and the only operator that such a model has is Identity.
            y = session.run(["y"], {"x": x})[0] if session else x
            requests.append({"x": blob.put(x), "y": blob.put(np.asarray(y))})
        operators = sorted({node.op_type for node in made.graph.node})
        models.append({
            "name": path.stem,
            "datatype": draft.kind,
            "rank": len(shape) + draft.batch,
            "batch": draft.batch,
            "mixes": mixes,
            "operators": operators,
            "requests": requests,
        })
    (arguments.folder / "tensors.bin").write_bytes(blob.data)
    (arguments.folder / "manifest.json").write_text(json.dumps(models))
    print(f"{len(models)} models, {len({o for m in models for o in m['operators']})} operators")


if __name__ == "__main__":
    main()
