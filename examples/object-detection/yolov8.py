#!/usr/bin/env python3
"""Serve a stock YOLOv8n through the same services.yaml: makes its ONNX file as Ultralytics exports it, with random weights.

    pip install ultralytics onnx
    python examples/object-detection/yolov8.py /tmp/yolov8
    xebec up /tmp/yolov8

Random weights find nothing that is there; what this shows is that the file of a stock export needs no change and no other
graph. For real answers export a model that was trained (`yolo export model=yolov8n.pt format=onnx opset=17`) and put its
file in the same place.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Nothing is to be fetched or installed on the way.
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")


def export(into: Path, seed: int) -> None:
    """Writes the ONNX file of an untrained YOLOv8n."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(seed)
    back = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        # It writes where it is called.
        os.chdir(scratch)
        try:
            # The name of a description, not of weights: the network before training, with the 80 classes of COCO.
            made = YOLO("yolov8n.yaml").export(format="onnx", imgsz=640, opset=17, simplify=False)
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made, into)
        finally:
            os.chdir(back)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets services.yaml and models/detector/1/model.onnx")
    parser.add_argument("--seed", type=int, default=8, help="of the random weights (default 8)")
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    if folder == HERE:
        parser.error("this is the folder of the example, whose model would be overwritten: name another one")
    model = folder / "models/detector/1/model.onnx"
    try:
        export(model, chosen.seed)
    except ImportError as error:
        print(f"{error}\nthis wants Ultralytics and PyTorch: pip install ultralytics onnx", file=sys.stderr)
        return 1
    shutil.copyfile(HERE / "services.yaml", folder / "services.yaml")
    print(f"{model}: {model.stat().st_size / 1e6:.1f} MB; serve it with: xebec up {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
