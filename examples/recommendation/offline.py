#!/usr/bin/env python3
"""The pipeline of services.yaml in one process, by NumPy and ONNX Runtime: what a server's answers are compared with.

It writes an answer for every user with clicks in the last days, and for some that do not exist, for judge.py:

    python examples/recommendation/offline.py
    python examples/recommendation/judge.py --predictions examples/recommendation/predictions.jsonl

Run it with tools/python/requirements-train.txt.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from judge import ANSWERS, COLD, TABLES, Tables

FOLDER = Path(__file__).parent
# As in services.yaml.
CANDIDATES, PER_CATEGORY = 200, 4
LIKED, PROFILE, POPULAR_NOW = "because you liked {}", "goes with your profile", "popular now"


class Pipeline:
    """Recommendations for one user at a time."""

    def __init__(self, models: Path, tables: Path, threads: int, ranker: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        load = lambda path: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.tower, self.ranker = load(models / "user_tower.onnx"), load(ranker or models / "ranker.onnx")
        table = lambda name: np.load(tables / f"{name}.npy")
        self.vectors, self.features = table("item_vectors"), table("item_features")
        self.category, self.likeness = table("item_category"), table("item_likeness")
        self.keys, self.profile, self.segment = table("user_keys"), table("user_profile"), table("user_segment")
        self.history, self.offsets = table("user_history"), table("user_history_offsets")
        self.names = (tables / "item_names.txt").read_text(encoding="utf-8").splitlines()
        end = table("popular_offsets")[1]
        self.popular = table("popular_items")[:end][:ANSWERS], table("popular_scores")[:end][:ANSWERS]

    def row(self, user: int) -> int | None:
        at = int(np.searchsorted(self.keys, user))
        return at if at < len(self.keys) and self.keys[at] == user else None

    def recommend(self, user: int) -> dict[str, list]:
        """Ten items for a user, with scores and reasons, and what retrieval and ranking alone would have said."""
        row = self.row(user)
        if row is None:
            items, scores = self.popular
            return {"items": items.tolist(), "scores": scores.tolist(), "reasons": [POPULAR_NOW] * len(items)}
        inputs, history = self.ranker_inputs(row)
        candidates, categories = inputs["ids"], inputs["categories"]
        scores = self.ranker.run(["scores"], inputs)[0]
        order = np.argsort(-scores, kind="stable")
        best = diversify(order, categories)
        items = candidates[best]
        return {
            "items": items.tolist(),
            "scores": scores[best].tolist(),
            "reasons": self.reasons(items, history),
            "retrieved": candidates[:ANSWERS].tolist(),
            "ranked": candidates[order[:ANSWERS]].tolist(),
        }

    def ranker_inputs(self, row: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What the ranker is asked for the user of a row, and the user's history."""
        history = self.history[self.offsets[row] : self.offsets[row + 1]]
        user_inputs = {"profile": self.profile[row : row + 1], "segment": self.segment[row : row + 1]}
        history_vectors = self.vectors[history]
        query = self.tower.run(["query"], {"history_vectors": history_vectors, **user_inputs})[0]
        candidates = self.nearest(query[0])
        candidates = candidates[~np.isin(candidates, history)]
        inputs = {
            "query": query,
            "history_vectors": history_vectors,
            "history_categories": self.category[history],
            **user_inputs,
            "ids": candidates,
            "vectors": self.vectors[candidates],
            "categories": self.category[candidates],
            "features": self.features[candidates],
        }
        return inputs, history

    def nearest(self, query: np.ndarray) -> np.ndarray:
        """The items with the largest dot products, best first."""
        scores = self.vectors @ query
        some = np.argpartition(-scores, CANDIDATES)[:CANDIDATES]
        return some[np.argsort(-scores[some], kind="stable")]

    def reasons(self, items: np.ndarray, history: np.ndarray) -> list[str]:
        """For each item the one of the history that it is most like."""
        if len(history) == 0:
            return [PROFILE] * len(items)
        liked = history[(self.likeness[items] @ self.likeness[history].T).argmax(axis=1)]
        return [LIKED.format(self.names[item]) for item in liked]


def diversify(order: np.ndarray, categories: np.ndarray) -> list[int]:
    """Of places in order the first ten, but not more than a few of each category as long as there are others."""
    taken, left, count = [], [], {}
    for at in order.tolist():
        category = int(categories[at])
        if count.get(category, 0) < PER_CATEGORY:
            count[category] = count.get(category, 0) + 1
            taken.append(at)
            if len(taken) == ANSWERS:
                return taken
        else:
            left.append(at)
    return [*taken, *left][:ANSWERS]


def infer_request(inputs: dict[str, np.ndarray]) -> dict[str, list]:
    """A request to a model in the JSON of the v2 protocol."""
    datatype = {"float32": "FP32", "int64": "INT64"}
    one = lambda name, value: {
        "name": name,
        "shape": list(value.shape),
        "datatype": datatype[value.dtype.name],
        "data": value.ravel().tolist(),
    }
    return {"inputs": [one(name, value) for name, value in inputs.items()]}


def write_requests(pipeline: Pipeline, tables: Tables, out: Path, count: int) -> None:
    """Requests to the ranker of as many users, for `xebec quantize` to calibrate and to measure on."""
    rows = [pipeline.row(user) for user in tables.users[tables.rows(count)].tolist()]
    requests = [infer_request(pipeline.ranker_inputs(row)[0]) for row in rows if row is not None]
    out.write_text(json.dumps(requests), encoding="utf-8")
    print(f"{len(requests)} requests to the ranker in {out}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, help="so many of the users, the same as judge.py has (default: all)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run of a model (default %(default)s)")
    parser.add_argument("--models", type=Path, default=FOLDER / "models")
    parser.add_argument("--ranker", type=Path, help="another ranker than that of --models, as a smaller copy")
    parser.add_argument("--requests", type=Path, help="only write the requests of 100 users to the ranker, as .json")
    parser.add_argument("--tables", type=Path, default=TABLES)
    parser.add_argument("--out", type=Path, default=FOLDER / "predictions.jsonl", help="where the answers go")
    chosen = parser.parse_args()
    if chosen.threads < 1 or (chosen.users is not None and chosen.users < 1):
        parser.error("--users and --threads are at least 1")
    tables = Tables(chosen.tables)
    rows = tables.rows(chosen.users)
    try:
        pipeline = Pipeline(chosen.models, chosen.tables, chosen.threads, chosen.ranker)
    except OSError as error:
        print(f"{error}\nmake the tables with: python examples/recommendation/make_tables.py", file=sys.stderr)
        return 1
    if chosen.requests:
        write_requests(pipeline, tables, chosen.requests, chosen.users or 100)
        return 0
    times, close, reasons = [], 0, 0
    with chosen.out.open("w", encoding="utf-8") as file:
        for user in [*tables.users[rows].tolist(), *COLD]:
            began = time.perf_counter()
            answer = pipeline.recommend(user)
            times.append(time.perf_counter() - began)
            file.write(json.dumps({"user": user, **answer}) + "\n")
            for item, reason in zip(answer["items"], answer["reasons"]):
                if reason.startswith("because"):
                    reasons += 1
                    close += pipeline.category[int(reason.rsplit(" ", 1)[1])] == pipeline.category[item]
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    print(f"{len(times)} answers in {chosen.out}, one after the other: {len(times) / sum(times):.0f} a second, ", end="")
    print(f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    print(f"{close / max(reasons, 1):.1%} of the reasons name an item of the same category")
    return 0


if __name__ == "__main__":
    sys.exit(main())
