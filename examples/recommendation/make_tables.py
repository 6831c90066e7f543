#!/usr/bin/env python3
"""Make the tables that the example serves: vectors and features of 100,000 items, histories of 20,000 users.

They are too big to keep with the source and are a function of the seed in log.py and of the trained item tower, so this makes
the same ones again, in well under a minute. Run it with tools/python/requirements-train.txt:

    python examples/recommendation/make_tables.py
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from judge import POPULAR, TABLES
from log import CATEGORIES, CONTENT, CUT, DAYS, ITEMS, SEGMENTS, World, make_world

MODELS = Path(__file__).parent / "models"


def item_vectors(world: World, features: np.ndarray, models: Path) -> np.ndarray:
    """The vector of every item, by the trained tower."""
    tower = onnxruntime.InferenceSession(models / "item_tower.onnx", providers=["CPUExecutionProvider"])
    parts = []
    for start in range(0, ITEMS, 10_000):
        some = slice(start, start + 10_000)
        items = {"categories": world.items.category[some], "content": world.items.content[some], "features": features[some]}
        parts.append(tower.run(["vectors"], items)[0])
    return np.concatenate(parts)


def likeness(world: World) -> np.ndarray:
    """A direction for every item: two are alike if what is said of them is, and that of their categories."""
    category, content = world.items.category, world.items.content
    sums = np.zeros((CATEGORIES, CONTENT), np.float32)
    np.add.at(sums, category, content)
    both = content + (sums / np.maximum(np.bincount(category, minlength=CATEGORIES), 1)[:, None])[category]
    return (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float32)


def tables(world: World, models: Path) -> dict[str, np.ndarray]:
    """All tables by name, as they are on the day of the cut."""
    features = world.features(CUT)
    history, history_offsets = world.between(0, CUT)
    held, held_offsets = world.between(CUT, DAYS)
    popular, share = world.popular(CUT, POPULAR)
    return {
        "item_vectors": item_vectors(world, features, models),
        "item_features": features,
        "item_category": world.items.category,
        "item_likeness": likeness(world),
        "user_keys": world.users.ids,
        "user_profile": world.users.profile,
        "user_segment": world.users.segment,
        "user_history": history,
        "user_history_offsets": history_offsets,
        "popular_items": popular.ravel(),
        "popular_scores": share.ravel(),
        "popular_offsets": np.arange(SEGMENTS + 1, dtype=np.int64) * POPULAR,
        # What users clicked on afterwards: only for judge.py.
        "held_items": held,
        "held_offsets": held_offsets,
    }


def write(folder: Path, made: dict[str, np.ndarray], names: list[str]) -> int:
    """Writes the tables, each whole or not at all; how many bytes they have."""
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    for name, table in made.items():
        part = folder / f"{name}.npy.part"
        with part.open("wb") as file:
            np.save(file, np.ascontiguousarray(table))
        total += part.replace(folder / f"{name}.npy").stat().st_size
    part = folder / "item_names.txt.part"
    part.write_text("\n".join(names) + "\n", encoding="utf-8")
    return total + part.replace(folder / "item_names.txt").stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=MODELS, help="the trained models (default: those of the example)")
    parser.add_argument("--out", type=Path, default=TABLES, help="where the tables go (default: tables/ of the example)")
    chosen = parser.parse_args()
    began = time.perf_counter()

    def say(what: str) -> None:
        print(f"{time.perf_counter() - began:5.1f} s  {what}", flush=True)

    try:
        due = json.loads((chosen.models / "world.json").read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        print(f"{error}\n{chosen.models} is not a folder of models that train.py wrote", file=sys.stderr)
        return 1
    world = make_world(say)
    if due != world.fingerprint():
        print(
            f"the models were trained on another log, {due}, than the one made here, {world.fingerprint()}.\n"
            f"Either log.py was changed, and train.py has to run again, or this NumPy ({np.__version__}) draws other numbers "
            "than that of tools/python/requirements-train.txt.",
            file=sys.stderr,
        )
        return 1
    say("vectors of items")
    made = tables(world, chosen.models)
    say("files")
    total = write(chosen.out, made, [world.name(item) for item in range(ITEMS)])
    say(f"{len(made) + 1} tables in {chosen.out}, {total / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
