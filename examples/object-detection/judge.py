#!/usr/bin/env python3
"""Judge a running detector on drawn scenes that it was not trained on: mAP as pycocotools counts it.

Scenes are packed as JPEG and sent to a graph, over REST with binary tensors. Or judge what a file says that others wrote:

    python examples/object-detection/judge.py
    python examples/object-detection/judge.py --save-pictures /tmp/pictures
    python examples/object-detection/judge.py --predictions answers.jsonl
"""

import argparse
import contextlib
import http.client
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

try:
    import numpy as np
    from PIL import Image
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    from scenes import CLASSES, scene
except ImportError as error:
    sys.exit(f"{error}\nget it with: pip install -r tools/python/requirements-judge-detection.txt")

# The first scene that train.py never sees.
UNSEEN = 1_000_000
OUTPUTS = {"boxes": (np.dtype("<f4"), "FP32"), "scores": (np.dtype("<f4"), "FP32"), "classes": (np.dtype("<i8"), "INT64")}


class Failed(Exception):
    """Why there is nothing to judge."""


class Unreached(Failed):
    """Nobody answers."""


def jpeg(pixels: np.ndarray) -> bytes:
    """The picture as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


class Connection:
    """One connection to a server, on which requests follow each other."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise Failed(f"'{url}' is no address of a server: write http://host:port")
        self.url = url
        self.http = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=60)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, str | None]:
        """The answer, and where its JSON ends if tensors follow it."""
        try:
            self.http.request("POST", path, body, headers)
            answer = self.http.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreached(f"no answer from {self.url}: {error}") from error
        if answer.status != 200:
            raise Failed(f"{self.url}{path} answers {answer.status}: {said[:500].decode(errors='replace')}")
        return said, answer.getheader("Inference-Header-Content-Length")


def ask_graph(url: str, graph: str) -> Callable[[bytes], dict]:
    """A function from a JPEG file to what a graph of xebec finds on it."""
    connection = Connection(url)

    def ask(picture: bytes) -> dict:
        tensor = len(picture).to_bytes(4, "little") + picture
        image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tensor)}}
        outputs = [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS]
        head = json.dumps({"inputs": [image], "outputs": outputs}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        said, length = connection.post(f"/v2/models/{graph}/infer", head + tensor, headers)
        try:
            return unpack(said, int(length or len(said)))
        except (ValueError, KeyError) as error:
            raise Failed(f"the answer of {graph} at {url} is not what its graph has: {error!r}") from error

    return ask


def unpack(said: bytes, length: int) -> dict:
    """The tensors of an answer."""
    found, at = {}, length
    for output in json.loads(said[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        kind, datatype = OUTPUTS[output["name"]]
        if output["datatype"] != datatype:
            raise ValueError(f"{output['name']} is {output['datatype']}, not {datatype}")
        found[output["name"]] = np.frombuffer(said[at : at + size], kind).reshape(output["shape"]).tolist()
        at += size
    return {name: found[name] for name in OUTPUTS}


def ask_service(url: str) -> Callable[[bytes], dict]:
    """A function from a JPEG file to what service.py finds on it."""
    connection = Connection(url)

    def ask(picture: bytes) -> dict:
        said, _ = connection.post("/detect", picture, {"Content-Type": "image/jpeg"})
        return json.loads(said)

    return ask


def read(path: Path, numbers: range) -> dict[int, dict]:
    """Predictions of a file, by scene; each scene must be there once."""
    found: dict[int, dict] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{path} cannot be read: {error}") from error
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            number = one.pop("scene")
            again = number in found
            found[number] = one
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Failed(f'{path}:{at}: not {{"scene": N, "boxes": ..., "scores": ..., "classes": ...}}: {error!r}') from error
        if again:
            raise Failed(f"{path}:{at}: scene {number} stands here for the second time")
    missing = [number for number in numbers if number not in found]
    if missing:
        raise Failed(f"{path} has nothing of {len(missing)} of the {len(numbers)} scenes; the first is {missing[0]}")
    return found


def checked(number: int, one: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and classes of a scene, if they are some."""
    try:
        boxes = np.array(one["boxes"], np.float64).reshape(-1, 4)
        scores, classes = np.array(one["scores"], np.float64), np.array(one["classes"], np.int64)
    except (ValueError, TypeError, KeyError) as error:
        raise Failed(f"scene {number}: no boxes, scores and classes: {error!r}") from error
    if not scores.shape == classes.shape == (len(boxes),):
        raise Failed(f"scene {number}: {len(boxes)} boxes, scores of shape {scores.shape} and classes of {classes.shape}")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise Failed(f"scene {number}: a box or a score is no number")
    return boxes, scores, classes


def progress(numbers: range, what: str) -> Iterator[int]:
    """The numbers, with a bar where somebody looks."""
    shown = sys.stderr.isatty()
    for at, number in enumerate(numbers, 1):
        yield number
        if shown and (at == len(numbers) or at % 5 == 0):
            done = 40 * at // len(numbers)
            end = "\n" if at == len(numbers) else ""
            print(f"\r{what} [{'#' * done}{' ' * (40 - done)}] {at}/{len(numbers)}", end=end, file=sys.stderr, flush=True)


class Judge:
    """Collects what is true and what was found, in the form of COCO."""

    def __init__(self) -> None:
        self.images: list[dict] = []
        self.true: list[dict] = []
        self.found: list[dict] = []

    def add(self, number: int, true: tuple[np.ndarray, np.ndarray], one: dict) -> None:
        boxes, scores, classes = checked(number, one)
        self.images.append({"id": number})
        for box, kind in zip(*true):
            size = box[2:] - box[:2]
            # An annotation's number begins at 1: pycocotools takes 0 for none.
            truth = {"id": len(self.true) + 1, "iscrowd": 0, "area": float(size.prod())}
            self.true.append(truth | self.entry(number, box, kind))
        for box, score, kind in zip(boxes, scores, classes):
            self.found.append(self.entry(number, box, kind) | {"score": float(score)})

    @staticmethod
    def entry(number: int, box: np.ndarray, kind: int) -> dict:
        left, top, right, bottom = map(float, box)
        return {"image_id": number, "category_id": int(kind), "bbox": [left, top, right - left, bottom - top]}

    def verdict(self) -> dict:
        """mAP, and AP of each class at an overlap of a half."""
        names = list(CLASSES)
        verdict = {"scenes": len(self.images), "objects": len(self.true), "boxes": len(self.found)}
        if not self.found:
            return verdict | {"mAP@0.5": 0.0, "mAP@0.5:0.95": 0.0, "AP@0.5": dict.fromkeys(names, 0.0)}
        # pycocotools tells on stdout what it does.
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            categories = [{"id": kind, "name": name} for kind, name in enumerate(names)]
            truth.dataset = {"info": {}, "images": self.images, "annotations": self.true, "categories": categories}
            truth.createIndex()
            count = COCOeval(truth, truth.loadRes(self.found), "bbox")
            count.evaluate()
            count.accumulate()
            count.summarize()
        # Axes: overlaps from 0.5 on, recalls, classes, sizes of objects, most boxes of a picture.
        precision = count.eval["precision"][0, :, :, 0, -1]
        by_class = {name: mean_of(precision[:, kind]) for kind, name in enumerate(names)}
        return verdict | {"mAP@0.5": float(count.stats[1]), "mAP@0.5:0.95": float(count.stats[0]), "AP@0.5": by_class}


def mean_of(precision: np.ndarray) -> float:
    """-1 stands where there is no object of a class."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def show(verdict: dict, seconds: float | None) -> None:
    by_class = ", ".join(f"{name} {ap:.4f}" for name, ap in verdict["AP@0.5"].items())
    print(f"{verdict['scenes']} scenes with {verdict['objects']} objects, {verdict['boxes']} boxes found")
    print(f"mAP@0.5      {verdict['mAP@0.5']:.4f}  ({by_class})")
    print(f"mAP@0.5:0.95 {verdict['mAP@0.5:0.95']:.4f}")
    if seconds is not None:
        print(f"{seconds * 1000:.1f} ms a picture, one after the other")


def save_pictures(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in progress(numbers, "drawing"):
        (folder / f"scene-{number}.jpg").write_bytes(jpeg(scene(number)[0]))
    print(f"{len(numbers)} pictures are in {folder}")


def judge(chosen: argparse.Namespace, numbers: range) -> int:
    if chosen.save_pictures:
        save_pictures(chosen.save_pictures, numbers)
        return 0
    known = read(chosen.predictions, numbers) if chosen.predictions else None
    ask = ask_service(chosen.service) if chosen.service else ask_graph(chosen.url, chosen.model)
    judged, answers, asking = Judge(), [], 0.0
    for number in progress(numbers, "judging"):
        pixels, *true = scene(number)
        if known is None:
            picture, began = jpeg(pixels), time.perf_counter()
            one = ask(picture)
            asking += time.perf_counter() - began
        else:
            one = known[number]
        judged.add(number, tuple(true), one)
        answers.append(json.dumps({"scene": number, **one}))
    if chosen.save_predictions:
        chosen.save_predictions.write_text("".join(line + "\n" for line in answers))
    verdict = judged.verdict()
    if chosen.json:
        print(json.dumps(verdict))
    else:
        show(verdict, asking / len(numbers) if known is None else None)
    if verdict["mAP@0.5"] < chosen.least:
        print(f"mAP@0.5 is below {chosen.least}", file=sys.stderr)
        return 1
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="a running xebec (default http://127.0.0.1:8000)")
    parser.add_argument("--model", default="detect", help="the graph to ask (default detect)")
    parser.add_argument("--service", metavar="URL", help="ask service.py in place of xebec")
    parser.add_argument("--predictions", type=Path, metavar="FILE.jsonl", help="judge what this file says, and ask nobody")
    parser.add_argument("--save-predictions", type=Path, metavar="FILE.jsonl", help="write what was answered")
    parser.add_argument("--save-pictures", type=Path, metavar="DIR", help="write the pictures as scene-N.jpg, and judge nothing")
    parser.add_argument("--first", type=int, default=UNSEEN, help=f"number of the first scene (default {UNSEEN})")
    parser.add_argument("--scenes", type=int, default=500, help="how many scenes (default 500)")
    parser.add_argument("--least", type=float, default=0.0, help="end with status 1 where mAP@0.5 is below this")
    parser.add_argument("--json", action="store_true", help="print one object of JSON")
    chosen = parser.parse_args()
    if chosen.scenes < 1 or chosen.first < 0:
        parser.error("--scenes is 1 at least, and --first is not below 0")
    return chosen


def main() -> int:
    chosen = arguments()
    try:
        return judge(chosen, range(chosen.first, chosen.first + chosen.scenes))
    except Unreached as error:
        start = "python examples/object-detection/service.py" if chosen.service else "xebec up examples/object-detection"
        print(f"{error}\nif no server runs there, start one with: {start}", file=sys.stderr)
    except (Failed, OSError) as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
