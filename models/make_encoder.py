#!/usr/bin/env python3
"""Make a sentence encoder of MiniLM-L6's size with random weights, as PyTorch would export it.

    python models/make_encoder.py encoder.onnx            # 90 MB: 6 layers, 384 wide, for benches
    python models/make_encoder.py tiny.onnx --tiny        # 100 kB, for tests

Inputs `input_ids` and `attention_mask` INT64 [batch, sequence]; output `embedding` FP32 [batch, hidden]: the mean of
the last layer over the tokens that the mask keeps. Needs numpy and onnx.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Nodes and weights as they are added."""

    def __init__(self, seed: int) -> None:
        self.nodes, self.weights = [], []
        self.rng = np.random.default_rng(seed)
        self.count = 0

    def add(self, op: str, *inputs: str, **attributes) -> str:
        self.count += 1
        output = f"{op}_{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, array: np.ndarray) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def random(self, *shape: int) -> str:
        return self.weight((self.rng.standard_normal(shape) * 0.02).astype(np.float32))

    def ints(self, *numbers: int) -> str:
        return self.weight(np.array(numbers, np.int64))

    def real(self, number: float) -> str:
        return self.weight(np.array(number, np.float32))

    def dim(self, value: str, axis: int) -> str:
        """One extent of a value, as a list of one, the way PyTorch's exporter asks for it."""
        shape = self.add("Shape", value)
        one = self.add("Gather", shape, self.weight(np.array(axis, np.int64)), axis=0)
        return self.add("Unsqueeze", one, self.ints(0))

    def linear(self, value: str, inputs: int, outputs: int) -> str:
        product = self.add("MatMul", value, self.random(inputs, outputs))
        return self.add("Add", product, self.random(outputs))

    def norm(self, value: str, width: int) -> str:
        scale, bias = np.ones(width, np.float32), np.zeros(width, np.float32)
        return self.add("LayerNormalization", value, self.weight(scale), self.weight(bias), axis=-1, epsilon=1e-12)


def attention(g: Graph, hidden: str, mask: str, width: int, heads: int) -> str:
    size = width // heads
    split = g.add("Concat", g.dim(hidden, 0), g.dim(hidden, 1), g.ints(heads), g.ints(size), axis=0)

    def head(value: str, perm: list[int]) -> str:
        return g.add("Transpose", g.add("Reshape", value, split), perm=perm)

    query = head(g.linear(hidden, width, width), [0, 2, 1, 3])
    key = head(g.linear(hidden, width, width), [0, 2, 3, 1])
    value = head(g.linear(hidden, width, width), [0, 2, 1, 3])
    scores = g.add("Div", g.add("MatMul", query, key), g.real(float(np.sqrt(size))))
    weights = g.add("Softmax", g.add("Add", scores, mask), axis=-1)
    mixed = g.add("Transpose", g.add("MatMul", weights, value), perm=[0, 2, 1, 3])
    joined = g.add("Concat", g.dim(mixed, 0), g.dim(mixed, 1), g.ints(width), axis=0)
    return g.linear(g.add("Reshape", mixed, joined), width, width)


def gelu(g: Graph, value: str) -> str:
    erf = g.add("Erf", g.add("Div", value, g.real(float(np.sqrt(2)))))
    return g.add("Mul", g.add("Mul", value, g.add("Add", erf, g.real(1.0))), g.real(0.5))


def encoder(layers: int, width: int, heads: int, inner: int, vocabulary: int, positions: int, seed: int) -> onnx.ModelProto:
    g = Graph(seed)
    words = g.add("Gather", g.random(vocabulary, width), "input_ids", axis=0)
    numbers = g.weight(np.arange(positions, dtype=np.int64)[None])
    used = g.add("Slice", numbers, g.ints(0), g.dim("input_ids", 1), g.ints(1), g.ints(1))
    places = g.add("Gather", g.random(positions, width), used, axis=0)
    hidden = g.norm(g.add("Add", g.add("Add", words, places), g.random(1, 1, width)), width)
    kept = g.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    wide = g.add("Unsqueeze", kept, g.ints(1, 2))
    mask = g.add("Mul", g.add("Sub", g.real(1.0), wide), g.real(-1e9))
    for _ in range(layers):
        hidden = g.norm(g.add("Add", hidden, attention(g, hidden, mask, width, heads)), width)
        inside = gelu(g, g.linear(hidden, width, inner))
        hidden = g.norm(g.add("Add", hidden, g.linear(inside, inner, width)), width)
    column = g.add("Unsqueeze", kept, g.ints(2))
    total = g.add("ReduceSum", g.add("Mul", hidden, column), g.ints(1), keepdims=0)
    count = g.add("ReduceSum", kept, g.ints(1), keepdims=1)
    g.nodes.append(helper.make_node("Div", [total, g.add("Max", count, g.real(1e-9))], ["embedding"], name="mean"))
    shape = ["batch", "sequence"]
    graph = helper.make_graph(
        g.nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])],
        g.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="xebec")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--tiny", action="store_true", help="2 layers, 32 wide, 100 words")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--inner", type=int, default=1536)
    parser.add_argument("--vocabulary", type=int, default=30522)
    parser.add_argument("--positions", type=int, default=512)
    parser.add_argument("--seed", type=int, default=7)
    a = parser.parse_args()
    size = (2, 32, 4, 64, 100, 64) if a.tiny else (a.layers, a.hidden, a.heads, a.inner, a.vocabulary, a.positions)
    made = encoder(*size, a.seed)
    a.file.parent.mkdir(parents=True, exist_ok=True)
    a.file.write_bytes(made.SerializeToString(deterministic=True))
    print(f"{a.file}: {a.file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
