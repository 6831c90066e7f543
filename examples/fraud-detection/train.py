#!/usr/bin/env python3
"""Make card transactions, train an MLP and gradient-boosted trees on them, and write everything the example serves.

Everything is seeded: a second run writes the same files. Run it with tools/python/requirements-train.txt:

    python examples/fraud-detection/train.py
"""

import argparse
import csv
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neural_network import MLPClassifier

FEATURES = [
    "amount",
    "hour",
    "weekday",
    "seconds_since_last",
    "distance_from_home_km",
    "distance_from_last_km",
    "card_age_days",
    "account_age_days",
    "credit_limit",
    "utilisation",
    "transactions_1h",
    "transactions_24h",
    "transactions_7d",
    "amount_1h",
    "amount_24h",
    "amount_7d",
    "mean_amount_30d",
    "std_amount_30d",
    "merchant_risk",
    "category_risk",
    "country_risk",
    "ip_risk",
    "device_age_days",
    "new_device",
    "new_merchant",
    "foreign",
    "online",
    "contactless",
    "pin_failures_24h",
    "declines_24h",
]
HELD_OUT, SAMPLE = 20_000, 200


def transactions(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws `count` transactions and whether each is fraud (about 2 %)."""
    x = {}
    x["amount"] = rng.lognormal(3.2, 1.1, count)
    x["hour"] = rng.integers(0, 24, count)
    x["weekday"] = rng.integers(0, 7, count)
    x["seconds_since_last"] = rng.exponential(40_000, count)
    x["distance_from_home_km"] = rng.lognormal(1.5, 1.4, count)
    x["distance_from_last_km"] = rng.lognormal(1.2, 1.5, count)
    x["card_age_days"] = rng.uniform(1, 2000, count)
    x["account_age_days"] = x["card_age_days"] + rng.exponential(1000, count)
    x["credit_limit"] = rng.choice([500, 1000, 2500, 5000, 10000], count)
    x["utilisation"] = rng.beta(2, 5, count)
    x["transactions_1h"] = rng.poisson(0.3, count)
    x["transactions_24h"] = x["transactions_1h"] + rng.poisson(2.5, count)
    x["transactions_7d"] = x["transactions_24h"] + rng.poisson(14, count)
    x["mean_amount_30d"] = rng.lognormal(3.2, 0.6, count)
    x["std_amount_30d"] = x["mean_amount_30d"] * rng.uniform(0.2, 1.2, count)
    for window in ("1h", "24h", "7d"):
        x[f"amount_{window}"] = x[f"transactions_{window}"] * x["mean_amount_30d"] * rng.uniform(0.5, 1.5, count)
    for name in ("merchant_risk", "category_risk", "country_risk", "ip_risk"):
        x[name] = rng.beta(1.5, 8, count)
    x["device_age_days"] = rng.exponential(300, count)
    for name, share in (("new_device", 0.05), ("new_merchant", 0.25), ("foreign", 0.07), ("online", 0.45), ("contactless", 0.3)):
        x[name] = rng.random(count) < share
    x["pin_failures_24h"] = rng.poisson(0.05, count)
    x["declines_24h"] = rng.poisson(0.08, count)
    unusual = (x["amount"] - x["mean_amount_30d"]) / (x["std_amount_30d"] + 1)
    night = (x["hour"] < 5).astype(float)
    score = (
        0.5 * np.clip(unusual, -2, 6)
        + 1.2 * np.log1p(x["transactions_1h"])
        + 2.2 * x["new_device"] * x["online"]
        + 1.8 * x["foreign"] * (x["distance_from_last_km"] > 20)
        + 6.0 * x["merchant_risk"] * x["category_risk"]
        + 5.0 * x["ip_risk"] * x["online"]
        + 4.0 * x["country_risk"] * x["foreign"]
        + 0.9 * night * (x["amount"] > 60)
        + 1.3 * np.minimum(x["pin_failures_24h"] + x["declines_24h"], 3)
        + 0.8 * (x["seconds_since_last"] < 120)
        - 0.4 * np.log1p(x["device_age_days"] / 30)
    )
    noisy = score + rng.logistic(0, 0.55, count)
    label = noisy > np.quantile(noisy, 0.98)
    return np.column_stack([x[name] for name in FEATURES]).astype(np.float32), label.astype(np.int64)


def export_mlp(network: MLPClassifier, mean: np.ndarray, scale: np.ndarray) -> onnx.ModelProto:
    """30-256-128-64-2 with softmax; the normalisation is folded into the first layer."""
    weights = [w.astype(np.float64) for w in network.coefs_]
    biases = [b.astype(np.float64) for b in network.intercepts_]
    biases[0] = biases[0] - (mean / scale) @ weights[0]
    weights[0] = weights[0] / scale[:, None]
    # One logit z is the same as two, -z/2 and z/2, under softmax.
    weights[-1] = np.hstack([-weights[-1] / 2, weights[-1] / 2])
    biases[-1] = np.hstack([-biases[-1] / 2, biases[-1] / 2])
    nodes, initializers, value = [], [], "transactions"
    for layer, (weight, bias) in enumerate(zip(weights, biases)):
        last = layer == len(weights) - 1
        for name, array in ((f"w{layer}", weight), (f"b{layer}", bias)):
            initializers.append(numpy_helper.from_array(array.astype(np.float32), name))
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [f"z{layer}"]))
        if last:
            nodes.append(helper.make_node("Softmax", [f"z{layer}"], ["probabilities"], axis=-1))
        else:
            nodes.append(helper.make_node("Relu", [f"z{layer}"], [f"h{layer}"]))
        value = f"h{layer}"
    graph = helper.make_graph(
        nodes,
        "fraud-mlp",
        [helper.make_tensor_value_info("transactions", TensorProto.FLOAT, ["batch", len(FEATURES)])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="xebec")


def export_trees(trees: GradientBoostingClassifier) -> onnx.ModelProto:
    model = to_onnx(
        trees,
        initial_types=[("transactions", FloatTensorType([None, len(FEATURES)]))],
        options={id(trees): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
        final_types=None,
    )
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.name = "fraud-trees"
    # The converter lists its operator sets in an order of its own at every run, and the oldest that would do.
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)])
    return model


def check_export(path: Path, x: np.ndarray, due: np.ndarray) -> None:
    """The file must answer as the trained model does: a wrong fold of the normalisation would only cost some AUC."""
    apart = float(np.abs(probabilities(path, x) - due[:, 1]).max())
    if apart > 1e-3:
        raise SystemExit(f"{path}: probabilities are up to {apart:.2g} from those of the trained model")
    print(f"{path.stem}: at most {apart:.1g} from the trained model's probabilities")


def probabilities(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    return session.run(["probabilities"], {"transactions": x})[0][:, 1]


def write_sample(folder: Path, x: np.ndarray, y: np.ndarray, models: dict[str, Path]) -> None:
    with (folder / "data/transactions.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FEATURES, "fraud"])
        for row, label in zip(x, y):
            writer.writerow([*(f"{number:.6g}" for number in row), label])
    # What is written is what was rounded, so the expected answers are to the rounded numbers.
    rounded = np.loadtxt(folder / "data/transactions.csv", delimiter=",", skiprows=1, dtype=np.float32)[:, :-1]
    expected = {name: [float(f"{p:.6g}") for p in probabilities(path, rounded)] for name, path in models.items()}
    (folder / "data/expected.json").write_text(json.dumps(expected) + "\n")
    three = {"name": "transactions", "shape": [3, len(FEATURES)], "datatype": "FP32"}
    three["data"] = [[float(f"{number:.6g}") for number in row] for row in rounded[:3]]
    lines = ",\n  ".join(json.dumps(row) for row in three.pop("data"))
    head = json.dumps({"inputs": [three]})
    (folder / "request.json").write_text(head.replace("}]}", ', "data": [\n  ' + lines + "\n]}]}") + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where the files go")
    folder = parser.parse_args().folder
    # Twelve passes are enough; that more would change the weights is no news.
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    rng = np.random.default_rng(20261124)
    x, y = transactions(80_000, rng)
    train_x, train_y, test_x, test_y = x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:]
    mean, scale = train_x.mean(axis=0, dtype=np.float64), train_x.std(axis=0, dtype=np.float64) + 1e-9
    network = MLPClassifier((256, 128, 64), alpha=1e-2, batch_size=512, max_iter=12, random_state=7)
    network.fit((train_x - mean) / scale, train_y)
    trees = GradientBoostingClassifier(n_estimators=120, max_depth=4, subsample=0.7, random_state=7)
    trees.fit(train_x, train_y)
    paths = {name: folder / "models" / f"{name}.onnx" for name in ("fraud-mlp", "fraud-trees")}
    paths["fraud-mlp"].parent.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    paths["fraud-mlp"].write_bytes(export_mlp(network, mean, scale).SerializeToString(deterministic=True))
    paths["fraud-trees"].write_bytes(export_trees(trees).SerializeToString(deterministic=True))
    check_export(paths["fraud-mlp"], test_x, network.predict_proba((test_x - mean) / scale))
    check_export(paths["fraud-trees"], test_x, trees.predict_proba(test_x))
    for name, path in paths.items():
        p = probabilities(path, test_x)
        auc, precision = roc_auc_score(test_y, p), average_precision_score(test_y, p)
        print(f"{name}: held-out AUC {auc:.4f}, average precision {precision:.4f}, {path.stat().st_size} bytes")
    fraud, fine = np.flatnonzero(test_y == 1)[:20], np.flatnonzero(test_y == 0)[: SAMPLE - 20]
    chosen = rng.permutation(np.concatenate([fraud, fine]))
    write_sample(folder, test_x[chosen], test_y[chosen], paths)


if __name__ == "__main__":
    main()
