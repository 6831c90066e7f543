#!/usr/bin/env python3
"""The same detector behind a service of the usual kind: FastAPI, OpenCV, ONNX Runtime, NumPy.

It answers what the graph `detect` of services.yaml answers, so that both can be compared:

    pip install -r tools/python/requirements-peer-detection.txt
    python examples/object-detection/service.py --port 9000
    curl -s --data-binary @examples/object-detection/data/scene.jpg http://127.0.0.1:9000/detect
"""

import argparse
import json
import os
import socket
import sys
from pathlib import Path

MODEL = Path(__file__).parent / "models/detector/1/model.onnx"

try:
    import anyio
    import cv2
    import numpy as np
    import onnxruntime
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request
except ImportError as error:
    sys.exit(f"{error}\nget it with: pip install -r tools/python/requirements-peer-detection.txt")

SIDE, GREY = 640, 114


class NoPicture(Exception):
    """The bytes are no picture."""


class Detector:
    """From a picture's file to boxes on it."""

    def __init__(self, model: Path, threads: int, score: float, iou: float) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.score, self.iou = score, iou

    def __call__(self, file: bytes) -> dict[str, list]:
        picture = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR) if file else None
        if picture is None:
            raise NoPicture("the body is no picture that OpenCV reads")
        boxed, scale, left, top = letterbox(picture)
        tensor = cv2.dnn.blobFromImage(boxed, 1 / 255, swapRB=True)
        (output,) = self.session.run(None, {self.input: tensor})
        boxes, scores, classes = decode(output[0], self.score)
        kept = nms(boxes, scores, classes, self.iou)
        boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
        boxes = (boxes - [left, top, left, top]) / [*scale, *scale]
        height, width = picture.shape[:2]
        boxes = boxes.clip(0, [width, height, width, height])
        return {"boxes": boxes.tolist(), "scores": scores.tolist(), "classes": classes.tolist()}


def letterbox(picture: np.ndarray) -> tuple[np.ndarray, tuple[float, float], int, int]:
    """The picture scaled into the middle of a grey square, with the scales of x and y, and its left upper corner."""
    height, width = picture.shape[:2]
    ratio = min(SIDE / width, SIDE / height)
    wide, high = (max(1, min(SIDE, int(side * ratio + 0.5))) for side in (width, height))
    if (wide, high) != (width, height):
        picture = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    left, top = (SIDE - wide) // 2, (SIDE - high) // 2
    if (wide, high) != (SIDE, SIDE):
        below, right = SIDE - high - top, SIDE - wide - left
        picture = cv2.copyMakeBorder(picture, top, below, left, right, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))
    return picture, (wide / width, high / height), left, top


def decode(output: np.ndarray, score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes as left, top, right, bottom, with their scores and classes, of the places that are sure enough."""
    best = output[4:].max(0)
    chosen = np.flatnonzero(best >= score)
    x, y, width, height = output[:4, chosen]
    boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
    return boxes, best[chosen], output[4:, chosen].argmax(0)


def nms(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float) -> np.ndarray:
    """Of boxes of the same class that overlap by more than `iou`, the one with the best score; at most 300."""
    order, kept = np.argsort(-scores, kind="stable"), []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while order.size and len(kept) < 300:
        best, rest = order[0], order[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clip(0).prod(1)
        overlap = shared / np.maximum(areas[best] + areas[rest] - shared, 1e-9)
        order = rest[(overlap <= iou) | (classes[rest] != classes[best])]
    return np.array(kept, np.int64)


def application(detector: Detector, at_once: int) -> FastAPI:
    app = FastAPI(title="detector")
    limit = anyio.CapacityLimiter(at_once)

    @app.post("/detect")
    async def detect(request: Request) -> dict:
        body = await request.body()
        try:
            return await anyio.to_thread.run_sync(detector, body, limiter=limit)
        except NoPicture as error:
            raise HTTPException(400, str(error)) from error

    @app.get("/health")
    async def health() -> dict:
        return {"ready": True}

    return app


def predict(detector: Detector, folder: Path, out: Path) -> None:
    """Works through pictures that judge.py saved, without a server."""
    files = sorted(folder.glob("scene-*.jpg"), key=lambda file: (len(file.name), file.name))
    if not files:
        sys.exit(f"{folder} has no scene-N.jpg; make some with: judge.py --save-pictures {folder}")
    with out.open("w") as lines:
        for file in files:
            number = int(file.stem.removeprefix("scene-"))
            lines.write(json.dumps({"scene": number, **detector(file.read_bytes())}) + "\n")
    print(f"{len(files)} pictures judged by the detector: {out}")


def listen(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        sys.exit(f"{host}:{port} cannot be listened on: {error}")
    return bound


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one (default 9000)")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime for a picture (default 1)")
    parser.add_argument("--at-once", type=int, help="pictures that are worked on at a time (default: cores / threads)")
    parser.add_argument("--score", type=float, default=0.25, help="least score of a box (default 0.25)")
    parser.add_argument("--iou", type=float, default=0.45, help="most that two boxes may overlap (default 0.45)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="with --predictions: detect on DIR/scene-N.jpg, serve nothing")
    parser.add_argument("--predictions", type=Path, metavar="FILE.jsonl", help="where the boxes of --pictures go")
    chosen = parser.parse_args()
    if chosen.threads < 1 or (chosen.at_once is not None and chosen.at_once < 1):
        parser.error("--threads and --at-once are 1 at least")
    if (chosen.pictures is None) != (chosen.predictions is None):
        parser.error("--pictures and --predictions go together")
    if not chosen.model.is_file():
        parser.error(f"there is no {chosen.model}; train.py makes it")
    return chosen


def main() -> None:
    chosen = arguments()
    detector = Detector(chosen.model, chosen.threads, chosen.score, chosen.iou)
    if chosen.pictures:
        predict(detector, chosen.pictures, chosen.predictions)
        return
    # Pictures that are worked on side by side have a core each; OpenCV's own threads would be more than there are cores.
    cv2.setNumThreads(chosen.threads)
    bound = listen(chosen.host, chosen.port)
    app = application(detector, chosen.at_once or max(1, len(os.sched_getaffinity(0)) // chosen.threads))
    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    print(f"http http://{host}:{bound.getsockname()[1]}", flush=True)
    # Who measures it asks others in between, and comes back on the same connection.
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=600)
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
