#!/usr/bin/env python3
"""Make the small models of the tests, byte for byte the same on every run.

`repository/` is a model repository that loads as a whole; `broken/` holds what must be refused; `configured/` what is
nothing without a configuration of its own. Run it with the
environment of tools/python/requirements-train.txt:

    python models/make_test_models.py models/testdata
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h

OPSET, IR = 17, 8

DATATYPES = {
    "bool": T.BOOL,
    "uint8": T.UINT8,
    "uint16": T.UINT16,
    "uint32": T.UINT32,
    "uint64": T.UINT64,
    "int8": T.INT8,
    "int16": T.INT16,
    "int32": T.INT32,
    "int64": T.INT64,
    "fp16": T.FLOAT16,
    "bf16": T.BFLOAT16,
    "fp32": T.FLOAT,
    "fp64": T.DOUBLE,
    "bytes": T.STRING,
}


def value(name: str, kind: int, shape: list) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: Iterable[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = h.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    imports = [h.make_opsetid("", OPSET), h.make_opsetid("ai.onnx.ml", 3)]
    return h.make_model(graph, opset_imports=imports, ir_version=IR, producer_name="xebec")


def constant(name: str, array: np.typing.ArrayLike) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(array), name)


def simple() -> onnx.ModelProto:
    """Sum and difference of two rows of 16, the best known example of Triton's clients."""
    shape = ["batch", 16]
    return model(
        [h.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]), h.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])],
        [value("INPUT0", T.INT32, shape), value("INPUT1", T.INT32, shape)],
        [value("OUTPUT0", T.INT32, shape), value("OUTPUT1", T.INT32, shape)],
    )


def simple_string() -> onnx.ModelProto:
    """Two rows of 16 strings, given back: ONNX has no arithmetic on text."""
    shape = ["batch", 16]
    return model(
        [h.make_node("Identity", [f"INPUT{i}"], [f"OUTPUT{i}"]) for i in range(2)],
        [value(f"INPUT{i}", T.STRING, shape) for i in range(2)],
        [value(f"OUTPUT{i}", T.STRING, shape) for i in range(2)],
    )


def identity(kind: int) -> onnx.ModelProto:
    return model(
        [h.make_node("Identity", ["x"], ["y"])],
        [value("x", kind, ["batch", "width"])],
        [value("y", kind, ["batch", "width"])],
    )


def scaler() -> onnx.ModelProto:
    return model(
        [h.make_node("Mul", ["x", "two"], ["twice"]), h.make_node("Add", ["twice", "one"], ["y"])],
        [value("x", T.FLOAT, ["batch", 4])],
        [value("y", T.FLOAT, ["batch", 4])],
        [constant("two", np.float32(2)), constant("one", np.float32(1))],
    )


def no_batch() -> onnx.ModelProto:
    return model([h.make_node("Neg", ["x"], ["y"])], [value("x", T.FLOAT, [3])], [value("y", T.FLOAT, [3])])


def scalar() -> onnx.ModelProto:
    return model([h.make_node("Neg", ["x"], ["y"])], [value("x", T.FLOAT, [])], [value("y", T.FLOAT, [])])


def softmax_over_batch() -> onnx.ModelProto:
    shape = ["batch", 3]
    node = h.make_node("Softmax", ["x"], ["y"], name="over_rows", axis=0)
    return model([node], [value("x", T.FLOAT, shape)], [value("y", T.FLOAT, shape)])


def dynamic_quantize() -> onnx.ModelProto:
    shape = ["batch", 3]
    nodes = [
        h.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], name="quantise"),
        h.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return model(nodes, [value("x", T.FLOAT, shape)], [value("y", T.FLOAT, shape)])


def reduce_in_if() -> onnx.ModelProto:
    """Adds, in a branch, the sum over all rows to every row."""
    shape = ["batch", 3]
    then = h.make_graph(
        [
            h.make_node("ReduceSum", ["x", "rows"], ["sum"], name="sum_of_rows", keepdims=1),
            h.make_node("Add", ["x", "sum"], ["then_y"]),
        ],
        "then",
        [],
        [value("then_y", T.FLOAT, shape)],
    )
    other = h.make_graph([h.make_node("Identity", ["x"], ["else_y"])], "else", [], [value("else_y", T.FLOAT, shape)])
    node = h.make_node("If", ["flag"], ["y"], name="branch", then_branch=then, else_branch=other)
    initializers = [constant("flag", np.array(True)), constant("rows", np.array([0], np.int64))]
    return model([node], [value("x", T.FLOAT, shape)], [value("y", T.FLOAT, shape)], initializers)


def nan_out() -> onnx.ModelProto:
    """Divides by zero: NaN, Infinity and -Infinity in answers."""
    return model(
        [h.make_node("Div", ["x", "zero"], ["y"])],
        [value("x", T.FLOAT, ["batch", 1])],
        [value("y", T.FLOAT, ["batch", 1])],
        [constant("zero", np.float32(0))],
    )


def lookup() -> onnx.ModelProto:
    """A table of ten rows: an index out of range is the caller's fault."""
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    return model(
        [h.make_node("Gather", ["table", "index"], ["y"])],
        [value("index", T.INT64, ["batch"])],
        [value("y", T.FLOAT, ["batch", 2])],
        [constant("table", table)],
    )


def chain(size: int, steps: int) -> onnx.ModelProto:
    """A chain of `steps` products of `size` x `size` matrices for every row.

    The weights are made in the graph, so the file stays small. Their sum over a column is 1, so values neither grow
    nor vanish: y = 0.01 * (sum of x) + 1 / size.
    """
    nodes = [
        h.make_node("ConstantOfShape", ["first"], ["a"], value=h.make_tensor("v", T.FLOAT, [1], [0.01])),
        h.make_node("MatMul", ["x", "a"], ["x0"]),
        h.make_node("ReduceMean", ["x0"], ["m"], axes=[1], keepdims=1),
        h.make_node("Unsqueeze", ["m", "last"], ["m3"]),
        h.make_node("ConstantOfShape", ["square"], ["w"], value=h.make_tensor("v", T.FLOAT, [1], [1 / size])),
        h.make_node("Add", ["m3", "w3"], ["h0"]),
    ]
    nodes += [h.make_node("MatMul", [f"h{i}", "w"], [f"h{i + 1}"]) for i in range(steps)]
    # One axis at a time: one float32 sum over a million values is off by 1e-3.
    nodes += [h.make_node("ReduceMean", [f"h{steps}"], ["r"], axes=[2], keepdims=0)]
    nodes += [h.make_node("ReduceMean", ["r"], ["y"], axes=[1], keepdims=0)]
    nodes.insert(5, h.make_node("Unsqueeze", ["w", "zero"], ["w3"]))
    initializers = [
        constant("first", np.array([4, 8], np.int64)),
        constant("square", np.array([size, size], np.int64)),
        constant("last", np.array([2], np.int64)),
        constant("zero", np.array([0], np.int64)),
    ]
    return model(nodes, [value("x", T.FLOAT, ["batch", 4])], [value("y", T.FLOAT, ["batch"])], initializers)


def reshaped() -> onnx.ModelProto:
    """Sums of rows of four, without an axis for the one number of a row."""
    nodes = [h.make_node("ReduceSum", ["x", "axes"], ["y"], "sum", keepdims=0)]
    return model(nodes, [value("x", T.FLOAT, ["batch", 4])], [value("y", T.FLOAT, ["batch"])], [constant("axes", np.array([1], np.int64))])


def optional() -> onnx.ModelProto:
    """x + bias, where bias has a default."""
    inputs = [value("x", T.FLOAT, ["batch", 2]), value("bias", T.FLOAT, ["batch", 2])]
    bias = constant("bias", np.array([[10, 20]], np.float32))
    return model([h.make_node("Add", ["x", "bias"], ["y"], "add")], inputs, [value("y", T.FLOAT, ["batch", 2])], [bias])


def ragged() -> onnx.ModelProto:
    """The sum of each request's values, which lie end to end, and the values doubled."""
    inputs = [value("values", T.FLOAT, ["total"]), value("bounds", T.INT64, ["bounds"])]
    outputs = [value("sum", T.FLOAT, ["requests", 1]), value("doubled", T.FLOAT, ["total"])]
    numbers = {"zero": 0, "one": 1, "last": -1, "end": 2**62}
    constants = [constant(name, np.array([number], np.int64)) for name, number in numbers.items()]
    constants += [constant("nothing", np.array([0], np.float32)), constant("axis", np.array(0, np.int64)), constant("two", np.array(2, np.float32))]
    nodes = [
        h.make_node("Concat", ["nothing", "values"], ["padded"], "pad", axis=0),
        h.make_node("CumSum", ["padded", "axis"], ["sums"], "sums"),
        h.make_node("Slice", ["bounds", "zero", "last"], ["from"], "from"),
        h.make_node("Slice", ["bounds", "one", "end"], ["to"], "to"),
        h.make_node("Gather", ["sums", "from"], ["before"], "before"),
        h.make_node("Gather", ["sums", "to"], ["after"], "after"),
        h.make_node("Sub", ["after", "before"], ["flat"], "difference"),
        h.make_node("Unsqueeze", ["flat", "one"], ["sum"], "column"),
        h.make_node("Mul", ["values", "two"], ["doubled"], "double"),
    ]
    return model(nodes, inputs, outputs, constants)


def accumulate() -> onnx.ModelProto:
    """A stateful model: the sum of what a sequence has sent, and what it was told of the sequence."""
    row = ["batch", 1]
    nodes = [
        h.make_node("Add", ["x", "sum_in"], ["sum"]),
        h.make_node("Identity", ["sum"], ["sum_out"]),
        h.make_node("Cast", ["corrid"], ["id"], to=T.FLOAT),
        h.make_node("Concat", ["start", "end", "ready", "id"], ["told"], axis=1),
    ]
    inputs = [value("x", T.FLOAT, row), value("corrid", T.INT32, row), value("sum_in", T.FLOAT, row)]
    inputs += [value(name, T.FLOAT, row) for name in ("start", "end", "ready")]
    outputs = [value("sum", T.FLOAT, row), value("told", T.FLOAT, ["batch", 4]), value("sum_out", T.FLOAT, row)]
    return model(nodes, inputs, outputs)


def configured(root: Path) -> None:
    """Models that are nothing without a config.pbtxt, which the tests write."""
    write(root / "accumulate.onnx", accumulate())
    write(root / "reshaped.onnx", reshaped())
    write(root / "optional.onnx", optional())
    write(root / "ragged.onnx", ragged())


def unknown_op() -> onnx.ModelProto:
    shape = ["batch", 3]
    return model([h.make_node("Frobnicate", ["x"], ["y"], name="f")], [value("x", T.FLOAT, shape)], [value("y", T.FLOAT, shape)])


def external(location: str) -> onnx.ModelProto:
    """One weight of two floats in a file beside the model."""
    weight = onnx.TensorProto(name="w", data_type=T.FLOAT, dims=[2], data_location=T.EXTERNAL)
    for key, text in {"location": location, "offset": "0", "length": "8"}.items():
        weight.external_data.add(key=key, value=text)
    return model(
        [h.make_node("Add", ["x", "w"], ["y"])],
        [value("x", T.FLOAT, ["batch", 2])],
        [value("y", T.FLOAT, ["batch", 2])],
        [weight],
    )


SIMPLE_CONFIG = """\
# The example that Triton's clients are shown with.
name: "simple"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  {{ name: "INPUT0" data_type: {kind} dims: [ 16 ] }},
  {{ name: "INPUT1" data_type: {kind} dims: [ 16 ] }}
]
output [
  {{ name: "OUTPUT0" data_type: {kind} dims: [ 16 ] }},
  {{ name: "OUTPUT1" data_type: {kind} dims: [ 16 ] }}
]
dynamic_batching {{ }}
"""


def write(path: Path, made: onnx.ModelProto) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.SerializeToString(deterministic=True))


def triton(root: Path, name: str, made: onnx.ModelProto, config: str = "", version: int = 1) -> None:
    write(root / name / str(version) / "model.onnx", made)
    if config:
        (root / name / "config.pbtxt").write_text(config)


def repository(root: Path) -> None:
    triton(root, "simple", simple(), SIMPLE_CONFIG.format(kind="TYPE_INT32"))
    text = SIMPLE_CONFIG.format(kind="TYPE_STRING").replace('"simple"', '"simple_string"')
    triton(root, "simple_string", simple_string(), text)
    for name, kind in DATATYPES.items():
        write(root / f"identity_{name}.onnx", identity(kind))
    for function in [scaler, no_batch, scalar, softmax_over_batch, dynamic_quantize, reduce_in_if, nan_out, lookup]:
        write(root / f"{function.__name__}.onnx", function())
    write(root / "medium.onnx", chain(256, 14))
    write(root / "slow.onnx", chain(1024, 20))
    triton(root, "external_data", external("weights.bin"))
    (root / "external_data/1/weights.bin").write_bytes(np.array([1, 2], np.float32).tobytes())
    for version in (1, 2, 3):
        triton(root, "versions", scaler(), 'version_policy: { specific: { versions: [ 1, 3 ] } }\n', version)


def broken(root: Path) -> None:
    write(root / "unknown_op.onnx", unknown_op())
    write(root / "external_escape.onnx", external("../secret.bin"))
    # It is there and fits, so that nothing but the rule about paths can refuse the model.
    (root.parent / "secret.bin").write_bytes(np.array([3, 4], np.float32).tobytes())
    write(root / "external_missing.onnx", external("missing.bin"))
    whole = scaler().SerializeToString(deterministic=True)
    (root / "empty.onnx").write_bytes(b"")
    (root / "truncated.onnx").write_bytes(whole[: len(whole) * 2 // 3])
    (root / "not_onnx.onnx").write_bytes(b"This is a text, not a model.\n" * 20)
    (root / "pickle.onnx").write_bytes(b"\x80\x04\x95" + bytes(50))
    config = 'max_batch_size: 8\ninput [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'
    triton(root, "misfit", scaler(), config + 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n')
    triton(root, "unhonoured", scaler(), 'model_operations { op_library_filename: "ops.so" }\ninput [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] is_shape_tensor: true } ]\ninstance_group [ { kind: KIND_MODEL } ]\n')


def answers() -> dict[str, tuple[dict[str, np.ndarray], Callable[[dict], list[np.ndarray]]]]:
    """For every model whose answer can be written down: inputs, and the outputs that are due to them."""
    row, rows = np.arange(4, dtype=np.float32)[None], np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    numbers = {f"INPUT{i}": np.arange(16, dtype=np.int32)[None] + i for i in range(2)}
    texts = {f"INPUT{i}": np.array([[f"é{i}"] * 16], object) for i in range(2)}
    power = np.exp(rows - rows.max(axis=0))
    due = {
        "simple": (numbers, lambda x: [x["INPUT0"] + x["INPUT1"], x["INPUT0"] - x["INPUT1"]]),
        "simple_string": (texts, lambda x: [x["INPUT0"], x["INPUT1"]]),
        "scaler": ({"x": row}, lambda x: [x["x"] * 2 + 1]),
        "no_batch": ({"x": rows[0]}, lambda x: [-x["x"]]),
        "scalar": ({"x": np.array(3, np.float32)}, lambda x: [-x["x"]]),
        "softmax_over_batch": ({"x": rows}, lambda _: [power / power.sum(axis=0)]),
        "reduce_in_if": ({"x": rows}, lambda x: [x["x"] + x["x"].sum(axis=0)]),
        "nan_out": ({"x": np.array([[0], [1]], np.float32)}, lambda _: [np.array([[np.nan], [np.inf]])]),
        "lookup": ({"index": np.array([9, 0])}, lambda _: [np.array([[18, 19], [0, 1]])]),
        "external_data": ({"x": rows[:, :2]}, lambda x: [x["x"] + [1, 2]]),
        "medium": ({"x": row}, lambda x: [0.01 * x["x"].sum(axis=1) + 1 / 256]),
        "slow": ({"x": row}, lambda x: [0.01 * x["x"].sum(axis=1) + 1 / 1024]),
        # Within one step of 1/255 of the range, which begins at 0.
        "dynamic_quantize": ({"x": rows}, lambda x: [x["x"]]),
    }
    due["versions"] = due["scaler"]
    cast = {T.STRING: object, T.BFLOAT16: None}
    for name, kind in DATATYPES.items():
        dtype = cast.get(kind, h.tensor_dtype_to_np_dtype(kind))
        if dtype is not None:
            due[f"identity_{name}"] = ({"x": np.array([["0", "1"]] if dtype is object else [[0, 1]], dtype)}, lambda x: [x["x"]])
    return due


def check(root: Path) -> bool:
    """Runs every model of a repository in onnxruntime; whether all loaded and answered as they should."""
    import onnxruntime

    due, well = answers(), True
    for path in sorted(root.rglob("*.onnx")):
        name = path.parent.parent.name if path.stem == "model" else path.stem
        try:
            session = onnxruntime.InferenceSession(path)
            if name not in due:
                print(f"{path.relative_to(root)}: loads")
                continue
            inputs, outputs = due[name]
            verdict = compare(session.run(None, inputs), outputs(inputs), 0.03 if name == "dynamic_quantize" else 1e-4)
        except Exception as error:
            verdict = f"FAILS: {error}"
        well = well and not verdict.startswith("FAILS")
        print(f"{path.relative_to(root)}: {verdict}")
    return well


def compare(got: list[np.ndarray], due: list[np.ndarray], tolerance: float) -> str:
    for one, other in zip(got, due, strict=True):
        if one.dtype == object:
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance / 100)
    return "right"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where repository/, broken/ and configured/ are written")
    parser.add_argument("--check", action="store_true", help="also run every model of repository/ in onnxruntime and compare its answer")
    arguments = parser.parse_args()
    for name in ("broken", "configured"):
        (arguments.folder / name).mkdir(parents=True, exist_ok=True)
    repository(arguments.folder / "repository")
    broken(arguments.folder / "broken")
    configured(arguments.folder / "configured")
    return 0 if not arguments.check or check(arguments.folder / "repository") else 1


if __name__ == "__main__":
    raise SystemExit(main())
