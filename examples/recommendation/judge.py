#!/usr/bin/env python3
"""Ask a running server for recommendations of every user with clicks in the last days, and say how good they are.

recall@10 is how many of the ten were clicked on, out of as many as could have been (at most ten); NDCG@10 counts those
further up for more. Both are means over users, for the answers and for the most popular items that a user has not seen. The
answers of a file (`--predictions`, a line of JSON for each user) are judged by the same code. NumPy is all that is needed:

    python examples/recommendation/judge.py --users 2000
"""

import argparse
import http.client
import json
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TABLES = Path(__file__).parent / "tables"
ANSWERS = 10
# More than anybody's history and ten.
POPULAR = 200
# Ids that no user has, to see what a cold user gets.
COLD = (7, 0, -1, 999_999_999, 2**62)


@dataclass(frozen=True)
class Truth:
    """What users clicked on afterwards and before, as ranges of rows of users, and the most popular items."""

    held: np.ndarray
    held_offsets: np.ndarray
    history: np.ndarray
    history_offsets: np.ndarray
    popular: np.ndarray

    def due(self, row: int) -> np.ndarray:
        return self.held[self.held_offsets[row] : self.held_offsets[row + 1]]

    def seen(self, row: int) -> np.ndarray:
        return self.history[self.history_offsets[row] : self.history_offsets[row + 1]]

    def popularity(self, row: int) -> np.ndarray:
        """The most popular items that the user has not seen."""
        return self.popular[~np.isin(self.popular, self.seen(row))][:ANSWERS]


def measure(truth: Truth, rows: Iterable[int], answers: Iterable[Sequence[int]]) -> tuple[float, float]:
    """recall@10 and NDCG@10 of answers for users, means over users."""
    gain = 1 / np.log2(np.arange(ANSWERS) + 2)
    recalls, ndcgs = [], []
    for row, items in zip(rows, answers, strict=True):
        due = truth.due(row)
        most = min(len(due), ANSWERS)
        hit = np.isin(np.asarray(items)[:ANSWERS], due)
        recalls.append(hit.sum() / most)
        ndcgs.append(gain[: len(hit)][hit].sum() / gain[:most].sum())
    return float(np.mean(recalls)), float(np.mean(ndcgs))


class Tables:
    """What `make_tables.py` wrote, as far as judging needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users = self.load("user_keys")
        history = (self.load("user_history"), self.load("user_history_offsets"))
        popular = self.load("popular_items")[: self.load("popular_offsets")[1]]
        self.truth = Truth(self.load("held_items"), self.load("held_offsets"), *history, popular)

    def load(self, name: str) -> np.ndarray:
        try:
            return np.load(self.folder / f"{name}.npy", mmap_mode="r")
        except (OSError, ValueError) as error:
            sys.exit(f"{error}\nmake the tables with: python examples/recommendation/make_tables.py")

    def rows(self, count: int | None) -> np.ndarray:
        """Users to judge by: all that clicked on something, or some of them that are always the same."""
        rows = np.flatnonzero(np.diff(self.truth.held_offsets) > 0)
        if count is None or count >= len(rows):
            return rows
        return np.sort(np.random.default_rng(1).choice(rows, count, replace=False))


class Refused(Exception):
    """The server has no such answer."""


@dataclass
class Server:
    """A connection to a server of the Open Inference Protocol."""

    url: str
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url if "//" in self.url else f"http://{self.url}")
        self.connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 8000, timeout=60)

    def infer(self, model: str, inputs: dict[str, np.ndarray]) -> dict[str, list]:
        """The outputs of a model, flat."""
        kinds = {"int64": "INT64", "float32": "FP32"}
        tensors = [
            {"name": name, "shape": list(x.shape), "datatype": kinds[str(x.dtype)], "data": x.ravel().tolist()}
            for name, x in inputs.items()
        ]
        body = json.dumps({"inputs": tensors})
        self.connection.request("POST", f"/v2/models/{model}/infer", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise Refused(f"{model}: {answer.status} {text[:300].decode(errors='replace')}")
        return {output["name"]: output["data"] for output in json.loads(text)["outputs"]}

    def recommend(self, model: str, user: int) -> dict[str, list]:
        outputs = self.infer(model, {"user": np.array([user], np.int64)})
        try:
            return {name: outputs[name] for name in ("items", "scores", "reasons")}
        except KeyError as error:
            raise Refused(f"{model} has no output {error}") from None


def ask_all(url: str, model: str, users: Sequence[int], clients: int) -> tuple[dict[int, dict], list[float], float]:
    """Answers by user, how long each took in ms, and how long all took in seconds."""
    answers: dict[int, dict] = {}
    times: list[float] = []
    faults: list[Exception] = []

    def ask(some: Sequence[int]) -> None:
        try:
            server = Server(url)
            for user in some:
                if faults:
                    return
                began = time.perf_counter()
                answers[user] = server.recommend(model, user)
                times.append((time.perf_counter() - began) * 1e3)
        except (OSError, http.client.HTTPException, ValueError, KeyError, Refused) as error:
            faults.append(error)

    threads = [threading.Thread(target=ask, args=(users[start::clients],)) for start in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return answers, times, time.perf_counter() - began


def read(path: Path) -> dict[int, dict]:
    """Answers of a file by user."""
    answers = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                answer = json.loads(line)
                answers[int(answer["user"])] = answer
                list(map(int, answer["items"]))
            except (ValueError, TypeError, KeyError) as error:
                sys.exit(f"{path}, line {number}: not an answer, which is {{\"user\": 1, \"items\": [...]}}: {error}")
    return answers


def wrong(answer: dict, seen: np.ndarray) -> str | None:
    """What is wrong with an answer, whatever it recommends."""
    items = answer["items"]
    if len(items) != ANSWERS or len(set(items)) != ANSWERS:
        return f"{len(items)} items, {len(set(items))} different ones"
    again = set(items) & set(seen.tolist())
    if again:
        return f"items that were seen: {sorted(again)}"
    for name in ("scores", "reasons"):
        if name in answer and len(answer[name]) != ANSWERS:
            return f"{len(answer[name])} {name}"
    return None


def check(answers: dict[int, dict], tables: Tables) -> int:
    """Prints what is wrong with answers; how many are."""
    faults = 0
    row_of = {user: row for row, user in enumerate(tables.users.tolist())}
    for user, answer in answers.items():
        row = row_of.get(user)
        fault = wrong(answer, tables.truth.seen(row) if row is not None else np.empty(0, np.int64))
        if fault is None and row is None and answer["items"] != tables.truth.popular[:ANSWERS].tolist():
            fault = "a cold user gets the most popular items, and this one does not"
        if fault is not None:
            faults += 1
            if faults <= 5:
                print(f"user {user}: {fault}", file=sys.stderr)
    return faults


def nearest(url: str, model: str, tables: Tables, rows: np.ndarray) -> str:
    """How many of the exactly nearest items the server's search finds, and of the clicks afterwards."""
    server, truth = Server(url), tables.truth
    vectors, profile, segment = (tables.load(name) for name in ("item_vectors", "user_profile", "user_segment"))
    exact_vectors = vectors.astype(np.float64)
    same, hits = [], []
    for row in rows:
        inputs = {"history": np.asarray(truth.seen(row)), "profile": profile[row][None], "segment": segment[row][None]}
        found = server.infer(model, inputs)
        ids = found["ids"]
        exact = np.argpartition(-(exact_vectors @ np.array(found["query"])), len(ids))[: len(ids)]
        same.append(np.isin(exact, ids).mean())
        hits.append(np.isin(truth.due(row), ids).mean())
    return (
        f"{model}: of the {len(ids)} nearest items it finds {np.mean(same):.4f}; among them are {np.mean(hits):.4f} "
        f"of the clicks afterwards ({len(rows)} users)"
    )


def table(truth: Truth, rows: np.ndarray, users: Sequence[int], answers: dict[int, dict]) -> None:
    """Prints the figures."""
    print(f"{len(rows)} users, {np.mean([len(truth.due(row)) for row in rows]):.2f} clicks to foresee each")
    print(f"{'':<22}{'recall@10':>10}{'NDCG@10':>10}")
    base = measure(truth, rows, [truth.popularity(row) for row in rows])
    lines = {"popularity": base}
    names = {"retrieved": "retrieval alone", "ranked": "without diversify", "items": "recommended"}
    for key, name in names.items():
        if all(key in answers[user] for user in users):
            lines[name] = measure(truth, rows, [answers[user][key] for user in users])
    for name, (recall, ndcg) in lines.items():
        print(f"{name:<22}{recall:>10.4f}{ndcg:>10.4f}")
    ours = lines["recommended"]
    if min(base) > 0:
        print(f"{'times popularity':<22}{ours[0] / base[0]:>10.2f}{ours[1] / base[1]:>10.2f}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default %(default)s)")
    parser.add_argument("--model", default="recommend", help="the graph that is asked (default %(default)s)")
    parser.add_argument("--retrieve", default="retrieve", help="the graph of the search (default %(default)s)")
    parser.add_argument("--users", type=int, help="so many of the users (default: all that clicked on something)")
    parser.add_argument("--clients", type=int, default=4, help="requests side by side (default %(default)s)")
    parser.add_argument("--predictions", type=Path, help="judge the answers of this file; no server is asked")
    parser.add_argument("--write", type=Path, help="write the server's answers to this file")
    parser.add_argument("--tables", type=Path, default=TABLES, help="what make_tables.py wrote")
    chosen = parser.parse_args()
    if chosen.users is not None and chosen.users < 1:
        parser.error("--users is at least 1")
    if not 1 <= chosen.clients <= 256:
        parser.error("--clients is 1 to 256")
    if chosen.predictions and chosen.write:
        parser.error("--write is for the answers of a server; --predictions is a file already")
    return chosen


def from_server(chosen: argparse.Namespace, tables: Tables, rows: np.ndarray, users: list[int]) -> dict[int, dict]:
    """The server's answers, also to cold users, with a line about how long they took."""
    try:
        # The first requests of a server are not those of its days.
        ask_all(chosen.url, chosen.model, users[:20], 1)
        answers, times, took = ask_all(chosen.url, chosen.model, users, chosen.clients)
        answers |= ask_all(chosen.url, chosen.model, list(COLD), 1)[0]
    except (OSError, http.client.HTTPException, ValueError, KeyError, Refused) as error:
        print(f"no recommendations from {chosen.url}: {error}", file=sys.stderr)
        sys.exit("if no server runs there, start one with: xebec up examples/recommendation")
    p50, p99 = np.percentile(times, [50, 99])
    rate = f"{len(users) / took:.0f} answers a second"
    print(f"{rate}, {chosen.clients} side by side; p50 {p50:.2f} ms, p99 {p99:.2f} ms, this script included")
    try:
        print(nearest(chosen.url, chosen.retrieve, tables, rows[:: max(len(rows) // 200, 1)][:200]))
    except Refused as error:
        print(f"the search alone cannot be asked: {error}")
    if chosen.write:
        with chosen.write.open("w", encoding="utf-8") as file:
            for user in [*users, *COLD]:
                file.write(json.dumps({"user": user, **answers[user]}) + "\n")
    return answers


def main() -> int:
    chosen = arguments()
    tables = Tables(chosen.tables)
    rows = tables.rows(chosen.users)
    users = tables.users[rows].tolist()
    if chosen.predictions is None:
        answers = from_server(chosen, tables, rows, users)
    else:
        try:
            answers = read(chosen.predictions)
        except OSError as error:
            sys.exit(f"{error}\nmake it with: python examples/recommendation/offline.py")
        missing = [user for user in users if user not in answers]
        if missing:
            sys.exit(f"{chosen.predictions} has no answer for {len(missing)} of {len(users)} users, such as {missing[0]}")
    faults = check(answers, tables)
    table(tables.truth, rows, users, answers)
    cold = len(answers.keys() - set(tables.users.tolist()))
    print(f"{len(answers)} answers, {cold} of them to cold users; {faults} are wrong")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
