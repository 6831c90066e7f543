#!/usr/bin/env python3
"""Score the sample of transactions with a running xebec, through the stock tritonclient."""

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data/transactions.csv"


def sample() -> tuple[np.ndarray, np.ndarray]:
    with DATA.open() as file:
        rows = list(csv.reader(file))[1:]
    table = np.array(rows, dtype=np.float32)
    return table[:, :-1], table[:, -1].astype(bool)


def scorer(protocol: str, url: str, model: str):
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


def auc(scores: np.ndarray, fraud: np.ndarray) -> float:
    """The chance that a fraud scores above a transaction that is none."""
    above = (scores[fraud][:, None] > scores[~fraud][None, :]).mean()
    equal = (scores[fraud][:, None] == scores[~fraud][None, :]).mean()
    return float(above + equal / 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", choices=["http", "grpc"], default="http")
    parser.add_argument("--url", help="host:port (default 127.0.0.1:8000, for grpc :8001)")
    parser.add_argument("--model", default="fraud-mlp", help="fraud-mlp or fraud-trees")
    parser.add_argument("--show", type=int, default=8, help="transactions to print")
    arguments = parser.parse_args()
    url = arguments.url or ("127.0.0.1:8001" if arguments.protocol == "grpc" else "127.0.0.1:8000")
    rows, fraud = sample()
    score = scorer(arguments.protocol, url, arguments.model)
    try:
        score(rows[:1])
    except Exception as error:
        print(f"no answer from {url}: {error}\nstart the server with: xebec up examples/fraud-detection", file=sys.stderr)
        return 1
    started = time.perf_counter()
    scores = np.array([score(row[None])[0] for row in rows])
    mean_us = (time.perf_counter() - started) / len(rows) * 1e6
    print(f"{'transaction':>11} {'amount':>9} {'P(fraud)':>9}  verdict")
    for number in np.argsort(-scores)[: arguments.show]:
        verdict = "block" if scores[number] > 0.5 else "review" if scores[number] > 0.1 else "pass"
        mark = "fraud" if fraud[number] else ""
        print(f"{number:>11} {rows[number, 0]:>9.2f} {scores[number]:>9.4f}  {verdict:<7}{mark}")
    print(f"{len(rows)} transactions, AUC {auc(scores, fraud):.4f}, {mean_us:.0f} us each over {arguments.protocol}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
