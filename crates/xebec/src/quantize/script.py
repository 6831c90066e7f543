"""Rewrites a model as a job says, with onnxruntime's own tools. `python -I script.py job.json answer.json`.

The answer is one object: the versions of the tools, or the packages that are missing, or an error.
"""

import importlib
import importlib.metadata
import json
import sys

PACKAGES = ["numpy", "onnx", "onnxruntime"]


def missing() -> list[str]:
    absent = []
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            absent.append(package)
    return absent


def calibration(job: dict):
    import numpy as np
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.requests = iter(job["calibration"]["requests"])

        def get_next(self):
            request = next(self.requests, None)
            if request is None:
                return None
            return {tensor["name"]: self.array(tensor) for tensor in request}

        def array(self, tensor: dict):
            dtype, count = np.dtype(tensor["dtype"]), tensor["size"] // np.dtype(tensor["dtype"]).itemsize
            flat = np.fromfile(job["calibration"]["file"], dtype, count, offset=tensor["offset"])
            return flat.reshape(tensor["shape"])

    return Reader()


def in_order(model):
    """Puts every node behind those that make its inputs, as ONNX asks: the tool appends its casts at the end."""
    graph = model.graph
    waiting, made = list(graph.node), {"", *(value.name for value in [*graph.input, *graph.initializer])}
    inside = {name for node in waiting for name in node.output}
    del graph.node[:]
    while waiting:
        # A name that nobody here makes comes from outside.
        free = [node for node in waiting if all(name in made or name not in inside for name in needs(node))]
        if not free:
            raise ValueError("the graph has a cycle")
        graph.node.extend(free)
        made.update(name for node in free for name in node.output)
        chosen = {id(node) for node in free}
        waiting = [node for node in waiting if id(node) not in chosen]
    return model


def needs(node):
    """Inputs of a node, with those of the graphs inside it."""
    inner = [graph for attribute in node.attribute for graph in [attribute.g, *attribute.graphs]]
    return [*node.input, *(name for graph in inner for child in graph.node for name in needs(child))]


def rewrite(job: dict) -> str:
    source, target = job["input"], job["output"]
    if job["mode"] == "fp16":
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(in_order(convert_float_to_float16(onnx.load(source), keep_io_types=True)), target)
        return "onnxruntime.transformers.float16.convert_float_to_float16"
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    shared = {"weight_type": QuantType.QInt8, "per_channel": job["per_channel"], "reduce_range": job["reduce_range"]}
    if job["mode"] == "dynamic":
        quantize_dynamic(source, target, **shared)
        return "onnxruntime.quantization.quantize_dynamic"
    quantize_static(source, target, calibration(job), activation_type=QuantType.QInt8, **shared)
    return "onnxruntime.quantization.quantize_static"


def answer(job: dict) -> dict:
    absent = missing()
    if absent:
        return {"missing": absent}
    try:
        tool = rewrite(job)
    except ImportError as error:
        return {"missing": [error.name or str(error)]}
    except Exception as error:  # noqa: BLE001: whatever it is, the caller tells it
        return {"error": f"{type(error).__name__}: {error}"}
    return {"tool": tool, "versions": {package: importlib.metadata.version(package) for package in PACKAGES}}


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        said = answer(json.load(file))
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(said, file)
