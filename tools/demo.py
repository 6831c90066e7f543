#!/usr/bin/env python3
"""Serve the examples, send real transactions, a picture and users, show the answers (`make demo`).

Only Python's standard library.
"""

import argparse
import csv
import json
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/fraud-detection"
PICTURE = ROOT / "examples/object-detection/data/scene.jpg"
EXPECTED = ROOT / "examples/object-detection/data/scene.json"
TABLES = ROOT / "examples/recommendation/tables"
SHAPES = ("circle", "square", "triangle")
# One with a long history, one with another taste, and one whom nobody knows.
USERS = (277_292, 100_059, 7)
MODELS = ("fraud-mlp", "fraud-trees")


def wait_ready(server: subprocess.Popen) -> dict[str, str]:
    """Shows what the server says until it is ready; returns it by its first words."""
    said = {}
    for line in server.stdout:
        print(line, end="", flush=True)
        word, _, rest = line.strip().partition(" ")
        said[word] = rest.strip()
        if word == "ready":
            return said
    sys.exit(f"xebec ended with status {server.wait()} before it was ready")


def end(server: subprocess.Popen) -> None:
    """Ends the server, which drains; it does not outlive this script."""
    if server.poll() is not None:
        return
    server.terminate()
    try:
        server.wait(timeout=60)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


class Told(Exception):
    """SIGINT or SIGTERM."""


def told(*_: object) -> None:
    # One is enough: what follows is the way to the end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise Told


def transactions(count: int) -> tuple[list[str], list[list[float]], list[bool]]:
    with (EXAMPLE / "data/transactions.csv").open() as file:
        head, *rows = csv.reader(file)
    rows = rows[:count]
    return head, [[float(cell) for cell in row[:-1]] for row in rows], [row[-1] == "1" for row in rows]


def ask(url: str, model: str, rows: list[list[float]]) -> tuple[list[float], float]:
    """Fraud probabilities of the rows, and the time the answer took, in microseconds."""
    tensor = {"name": "transactions", "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": rows}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    request = urllib.request.Request(f"{url}/v2/models/{model}/infer", body, {"Content-Type": "application/json"})
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=10) as answer:
        data = json.load(answer)["outputs"][0]["data"]
    return data[1::2], (time.perf_counter() - started) * 1e6


def show(url: str) -> bool:
    """Prints a table of answers; whether all are the expected ones."""
    head, rows, fraud = transactions(200)
    expected = json.loads((EXAMPLE / "data/expected.json").read_text())
    right = True
    for model in MODELS:
        single = [ask(url, model, [row]) for row in rows[:50]]
        batch, _ = ask(url, model, rows[:64])
        scores = [scores[0] for scores, _ in single] + batch[50:]
        wrong = [i for i, score in enumerate(scores) if abs(score - expected[model][i]) > 1e-5]
        right = right and not wrong
        times = sorted(us for _, us in single)
        print(f"\n{model}: the five most suspicious of {len(scores)} transactions")
        print(f"  {'number':>6} {'amount':>9} {'hour':>5} {'P(fraud)':>9}")
        for number in sorted(range(len(scores)), key=lambda i: -scores[i])[:5]:
            row, mark = rows[number], "  fraud" if fraud[number] else ""
            print(f"  {number:>6} {row[0]:>9.2f} {row[1]:>5.0f} {scores[number]:>9.4f}{mark}")
        verdict = "all answers are right" if not wrong else f"{len(wrong)} answers are WRONG: {wrong[:5]}"
        print(f"  {verdict}; a request took {times[len(times) // 2]:.0f} us (median of {len(times)}, this script included)")
    return right


def tensors(url: str, model: str, inputs: list[dict], outputs: list[str], raw: bytes = b"") -> dict:
    """Outputs of a model by name: bytes of each, and numbers of those that are some."""
    asked = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    head = json.dumps({"inputs": inputs, "outputs": asked}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{url}/v2/models/{model}/infer", head + raw, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        length, body = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
    found, at = {}, length
    for output in json.loads(body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = unpacked(output["datatype"], body[at : at + size])
        at += size
    return found


def unpacked(datatype: str, data: bytes) -> list:
    if datatype != "BYTES":
        letter, size = {"FP32": ("f", 4), "INT64": ("q", 8)}[datatype]
        return list(struct.unpack(f"<{len(data) // size}{letter}", data))
    elements, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        elements.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return elements


def show_picture(url: str, out: Path) -> bool:
    """Finds the shapes of a picture and saves it with boxes; whether they are the expected ones."""
    file = PICTURE.read_bytes()
    element = struct.pack("<I", len(file)) + file
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(element)}}
    started = time.perf_counter()
    found = tensors(url, "detect-picture", [image], ["boxes", "scores", "classes", "image"], element)
    took = (time.perf_counter() - started) * 1e3
    print(f"\ndetect-picture: what is on {PICTURE.relative_to(ROOT)}")
    print(f"  {'shape':<9} {'score':>5} {'left':>6} {'top':>6} {'right':>6} {'bottom':>6}")
    boxes = [found["boxes"][at : at + 4] for at in range(0, len(found["boxes"]), 4)]
    for kind, score, box in zip(found["classes"], found["scores"], boxes):
        print(f"  {SHAPES[kind]:<9} {score:>5.2f} " + " ".join(f"{edge:>6.1f}" for edge in box))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(found["image"][0])
    expected = json.loads(EXPECTED.read_text())
    near = lambda box, other: all(abs(a - b) < 8 for a, b in zip(box, other))
    unseen = [
        [SHAPES[kind], box]
        for kind, box in zip(expected["classes"], expected["boxes"])
        if not any(kind == other and near(box, at) for other, at in zip(found["classes"], boxes))
    ]
    verdict = f"{len(unseen)} of {len(expected['classes'])} shapes were NOT found: {unseen}" if unseen else "every shape was found"
    shown = out.relative_to(ROOT) if out.is_relative_to(ROOT) else out
    print(f"  {verdict}; {took:.1f} ms from JPEG to boxes; with boxes on it: {shown}")
    return not unseen


def show_items(url: str) -> bool:
    """Recommends items to users; whether each has ten different ones."""
    right = True
    for user in USERS:
        asked = {"name": "user", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
        started = time.perf_counter()
        found = tensors(url, "recommend", [asked], ["items", "scores", "reasons"], struct.pack("<q", user))
        took = (time.perf_counter() - started) * 1e3
        items, reasons = found["items"], [reason.decode() for reason in found["reasons"]]
        print(f"\nrecommend: user {user}, the first three of {len(items)} items in {took:.1f} ms")
        for item, score, reason in list(zip(items, found["scores"], reasons))[:3]:
            print(f"  item {item:>6}  {score:>7.3f}  {reason}")
        right = right and len(set(items)) == 10
    print("  every user has ten different items" if right else "  a user has NOT ten different items")
    return right


def try_it(said: dict[str, str]) -> None:
    print("\ntry it yourself:")
    print(f"  curl -s {said['http']}/v2/models/fraud-mlp/infer -d @examples/fraud-detection/request.json")
    print(f"  target/release/xebec infer fraud-mlp --url {said['http']} --input examples/fraud-detection/request.json")
    print(f"  target/release/xebec infer detect-picture --url {said['http']} --image examples/object-detection/data/scene.jpg")
    print(f"  curl -s {said['metrics']}")


def serve(server: subprocess.Popen, once: bool) -> int:
    """The demonstration on a server that starts; the exit status."""
    said = wait_ready(server)
    right = show(said["http"])
    right = show_picture(said["http"], ROOT / "target/demo/scene-with-boxes.jpg") and right
    right = show_items(said["http"]) and right
    if once:
        print(f"\nserved on {said['http']} and {said['grpc']} (gRPC), metrics on {said['metrics']}")
        return 0 if right else 1
    try_it(said)
    print("\nserving until Ctrl-C", flush=True)
    try:
        status = server.wait()
    except Told:
        return 0 if right else 1
    print(f"xebec ended by itself with status {status}", file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/xebec")
    parser.add_argument("--once", action="store_true", help="stop after the answers, with their exit status, on free ports")
    arguments = parser.parse_args()
    if not arguments.binary.is_file():
        sys.exit(f"there is no {arguments.binary}; `make demo` builds it, or: cargo build --release --package xebec")
    if not (TABLES / "item_vectors.npy").is_file():
        sys.exit(f"there are no tables in {TABLES}; `make demo` makes them, or: make tables")
    free = [word for kind in ("http", "grpc", "metrics") for word in (f"--{kind}-port", "0")]
    command = [str(arguments.binary), "up", str(ROOT / "examples"), *(free if arguments.once else [])]
    server = None
    try:
        signal.signal(signal.SIGINT, told)
        signal.signal(signal.SIGTERM, told)
        # In a session of its own: Ctrl-C would reach it too, and be the first of two signals, of which the second kills.
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        return serve(server, arguments.once)
    except Told:
        # Cut short before all answers were there.
        return 130
    except OSError as error:
        # The server refused or was not reached; a traceback would say less.
        print(f"the demonstration failed: {error}", file=sys.stderr)
        return 1
    finally:
        if server is not None:
            end(server)


if __name__ == "__main__":
    sys.exit(main())
