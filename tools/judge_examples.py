#!/usr/bin/env python3
"""Judge the examples by the server's answers over the wire, and again by the same crates in one loop (`make judge-examples`).

Prints mAP of the detector and recall@10 and NDCG@10 of the recommendations. Ends with status 1 where the two evaluations differ in
a digit that is printed, or where a figure is below what is wanted. Only Python's standard library; the judges themselves run with the
Python that --python names.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import ROOT, end, wait_ready

DETECTION, RECOMMENDATION = ROOT / "examples/object-detection", ROOT / "examples/recommendation"
LEAST_MAP, LEAST_RATIO = 0.9, 2.0


class Failed(Exception):
    """A part of the judgement could not be had."""


def run(command: list[object]) -> str:
    """What a command prints."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"status {done.returncode} of: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def detection(python: Path, figures: Path, url: str, scenes: int, folder: Path) -> bool:
    judge = [python, "-B", DETECTION / "judge.py", "--scenes", scenes]
    served = run([*judge, "--url", url, "--json"])
    pictures, alone = folder / "pictures", folder / "boxes.jsonl"
    run([*judge, "--save-pictures", pictures])
    run([figures, "detect", "--pictures", pictures, "--predictions", alone])
    offline = run([*judge, "--predictions", alone, "--json"])
    verdict = json.loads(served)
    by_class = ", ".join(f"{name} {ap:.4f}" for name, ap in verdict["AP@0.5"].items())
    print(f"object detection: {verdict['scenes']} unseen scenes, {verdict['objects']} objects, {verdict['boxes']} boxes")
    print(f"  mAP@0.5 {verdict['mAP@0.5']:.4f} ({by_class}), mAP@0.5:0.95 {verdict['mAP@0.5:0.95']:.4f}")
    return told("in one loop, without a server", served == offline) & told(
        f"mAP@0.5 is {LEAST_MAP} or more", verdict["mAP@0.5"] >= LEAST_MAP
    )


def recommendation(python: Path, figures: Path, url: str, users: int | None, folder: Path) -> bool:
    judge = [python, "-B", RECOMMENDATION / "judge.py", *(["--users", users] if users else [])]
    served, alone = folder / "served.jsonl", folder / "alone.jsonl"
    said = run([*judge, "--url", url, "--write", served])
    run([figures, "recommend", "--users", served, "--predictions", alone])
    tables = [figures_of(said), figures_of(run([*judge, "--predictions", alone]))]
    print("recommendation:")
    for line in said.splitlines():
        print(f"  {line}")
    ratio = float(re.search(r"^times popularity +([0-9.]+)", said, re.M)[1])
    return told("in one loop, without a server", tables[0] == tables[1]) & told(
        f"recall@10 is {LEAST_RATIO:g} times that of popularity or more", ratio >= LEAST_RATIO
    )


def figures_of(said: str) -> list[str]:
    """Lines of the table, without those about time."""
    return [line for line in said.splitlines() if re.match(r"(popularity|recommended|times popularity) ", line)]


def told(what: str, holds: bool) -> bool:
    print(f"  {what}: {'the same' if 'loop' in what and holds else 'yes' if holds else 'NO'}")
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/xebec")
    parser.add_argument("--figures", type=Path, default=ROOT / "target/release/figures")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="with NumPy, Pillow and pycocotools")
    parser.add_argument("--scenes", type=int, default=500, help="unseen scenes (default %(default)s)")
    parser.add_argument("--users", type=int, help="so many users (default: all that clicked on something)")
    chosen = parser.parse_args()
    free = [word for kind in ("http", "grpc", "metrics") for word in (f"--{kind}-port", "0")]
    command = [str(chosen.binary), "up", str(ROOT / "examples"), *free]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        url = wait_ready(server)["http"]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            good = detection(chosen.python, chosen.figures, url, chosen.scenes, folder)
            good &= recommendation(chosen.python, chosen.figures, url, chosen.users, folder)
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        end(server)
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())
