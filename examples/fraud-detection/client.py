#!/usr/bin/env python3
"""Score the sample of transactions with a running server, through the stock tritonclient."""

import argparse
import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data/transactions.csv"
PORTS = {"http": 8000, "grpc": 8001}


def sample() -> tuple[np.ndarray, np.ndarray]:
    """The features of every transaction, and which ones are fraud."""
    with DATA.open() as file:
        rows = list(csv.reader(file))[1:]
    table = np.array(rows, dtype=np.float32)
    return table[:, :-1], table[:, -1].astype(bool)


def scorer(protocol: str, url: str, model: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from rows to fraud probabilities."""
    if protocol == "grpc":
        import tritonclient.grpc as client
    else:
        import tritonclient.http as client
    connection = client.InferenceServerClient(url)

    def score(rows: np.ndarray) -> np.ndarray:
        tensor = client.InferInput("transactions", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows)
        outputs = [client.InferRequestedOutput("probabilities")]
        return connection.infer(model, [tensor], outputs=outputs).as_numpy("probabilities")[:, 1]

    return score


def score_all(score: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, batch: int) -> tuple[np.ndarray, float]:
    """The scores of all rows, sent `batch` at a time, and the mean latency of a request in microseconds."""
    scores, began = [], time.perf_counter()
    for start in range(0, len(rows), batch):
        scores.append(score(rows[start : start + batch]))
    return np.concatenate(scores), (time.perf_counter() - began) / len(scores) * 1e6


def auc(scores: np.ndarray, fraud: np.ndarray) -> float:
    """The chance that a fraud scores above a transaction that is none."""
    above = (scores[fraud][:, None] > scores[~fraud][None, :]).mean()
    equal = (scores[fraud][:, None] == scores[~fraud][None, :]).mean()
    return float(above + equal / 2)


def show(rows: np.ndarray, fraud: np.ndarray, scores: np.ndarray, count: int) -> None:
    """Prints the most suspicious transactions."""
    print(f"{'transaction':>11} {'amount':>9} {'P(fraud)':>9}  {'verdict':<8}in truth")
    for number in np.argsort(-scores)[:count]:
        verdict = "block" if scores[number] > 0.5 else "review" if scores[number] > 0.1 else "pass"
        truth = "fraud" if fraud[number] else "fine"
        print(f"{number:>11} {rows[number, 0]:>9.2f} {scores[number]:>9.4f}  {verdict:<8}{truth}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", choices=sorted(PORTS), default="http")
    parser.add_argument("--url", help="host:port (default: 127.0.0.1 with port 8000, for grpc 8001)")
    parser.add_argument("--model", default="fraud-mlp", help="fraud-mlp or fraud-trees")
    parser.add_argument("--batch", type=int, default=1, help="transactions in one request, 1 to 64 (default 1)")
    parser.add_argument("--show", type=int, default=8, help="transactions to print")
    chosen = parser.parse_args()
    if not 1 <= chosen.batch <= 64:
        parser.error("--batch is 1 to 64: the models are served with maxBatchSize 64")
    return chosen


def main() -> int:
    chosen = arguments()
    url = chosen.url or f"127.0.0.1:{PORTS[chosen.protocol]}"
    rows, fraud = sample()
    try:
        score = scorer(chosen.protocol, url, chosen.model)
    except ImportError as error:
        print(f"{error}\nget it with: pip install -r tools/python/requirements-clients.txt", file=sys.stderr)
        return 1
    try:
        score(rows[:1])
        scores, mean_us = score_all(score, rows, chosen.batch)
    # The two transports raise different kinds when nobody listens, and one of them no tritonclient error.
    except Exception as error:
        print(f"no scores from {chosen.model} at {url}: {error}", file=sys.stderr)
        print("if no server runs there, start one with: xebec up examples/fraud-detection", file=sys.stderr)
        return 1
    show(rows, fraud, scores, chosen.show)
    print(f"{len(rows)} transactions, AUC of the sample {auc(scores, fraud):.4f}")
    print(f"{mean_us:.0f} us a request of {chosen.batch} over {chosen.protocol}, on average")
    return 0


if __name__ == "__main__":
    sys.exit(main())
