"""Checks a copy that `xebec quantize` made against onnxruntime's own tools, called directly.

    quantize.py MODE ORIGINAL COPY CALIBRATION.csv EVAL.csv

Prints one line of JSON: whether the copy is the file that the tool makes, and the losses by onnxruntime in Python.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16


class Rows(CalibrationDataReader):
    def __init__(self, rows: np.ndarray) -> None:
        self.rows = iter(rows)

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"transactions": row[None]}


def make(mode: str, original: str, copy: str, rows: np.ndarray) -> None:
    if mode == "fp16":
        onnx.save(convert_float_to_float16(onnx.load(original), keep_io_types=True), copy)
    elif mode == "dynamic":
        quantize_dynamic(original, copy, weight_type=QuantType.QInt8)
    else:
        quantize_static(original, copy, Rows(rows))


def answers(path: str, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # A dynamic copy answers by its company: requests of 32 rows, as xebec makes them.
    parts = [rows[at : at + 32] for at in range(0, len(rows), 32)]
    return np.concatenate([session.run(["probabilities"], {"transactions": part})[0] for part in parts])


def main() -> None:
    mode, original, copy, *files = sys.argv[1:]
    calibration, rows = (np.loadtxt(file, np.float32, delimiter=",", skiprows=1) for file in files)
    with tempfile.TemporaryDirectory() as folder:
        # The tools write beside the file that they read.
        source = shutil.copy(original, folder)
        direct = str(Path(folder) / "direct.onnx")
        make(mode, source, direct, calibration)
        same = Path(direct).read_bytes() == Path(copy).read_bytes()
        equal = bool(np.array_equal(answers(direct, rows), answers(copy, rows)))
    a, b = answers(original, rows).astype(np.float64), answers(copy, rows).astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    losses = {
        "max-abs": np.abs(a - b).max(),
        "mean-abs": np.abs(a - b).mean(),
        "relative": np.linalg.norm(a - b) / np.linalg.norm(a),
        "cosine": 1 - ((a * b).sum(axis=1) / lengths).mean(),
        "top1": (a.argmax(axis=1) != b.argmax(axis=1)).mean(),
    }
    print(json.dumps({"same": same, "equal": equal, "losses": {name: float(loss) for name, loss in losses.items()}}))


if __name__ == "__main__":
    main()
