#!/usr/bin/env python3
"""Train the two towers and the ranker on the log, and write the models that the example serves.

The towers give a user and an item a vector each, so that the items for a user are those whose vectors have the largest dot
products with the user's. They are trained by a softmax over the items of a batch and some drawn at random, corrected for how
often an item is in a batch. The ranker, a network with embedding tables and dot products of all pairs as in DLRM, sorts what
the towers find. Both learn from days on which only what was before is known: of every fifth day, what users clicked on in the
five days after it. How good they are is printed of the five days after the last that they learn from; the last five days of
the log are left for judge.py.

Everything is seeded. Run it with tools/python/requirements-train.txt and tools/python/requirements-import-pytorch.txt:

    python examples/recommendation/train.py
"""

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from judge import POPULAR, Truth, measure
from log import CATEGORIES, CONTENT, CUT, DAYS, ITEMS, SEED, SEGMENTS, SEEN_TASTE, USERS, World, make_world
from torch import Tensor, nn
from torch.nn import functional as F

MODELS = Path(__file__).parent / "models"
WINDOW = 5
# Five days that nothing learns from, to try things on.
CHECKED = int(CUT) - WINDOW
# Numbers of a vector of the towers; of an embedding in the ranker; rows of its table of hashed items.
WIDTH, EMBEDDING, BUCKETS = 32, 16, 2048
PROFILE, FEATURES = SEEN_TASTE + 2, 5
CANDIDATES, ANSWERS = 200, 10


def layers(*widths: int) -> nn.Sequential:
    """Fully connected, with a ReLU between."""
    parts: list[nn.Module] = []
    for inner, outer in zip(widths, widths[1:]):
        parts += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def small_table(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=0.05)
    return table


class ItemTower(nn.Module):
    """Categories [n], content [n, CONTENT] and features [n, FEATURES] of items; their vectors [n, WIDTH]."""

    def __init__(self) -> None:
        super().__init__()
        self.category = small_table(CATEGORIES, EMBEDDING)
        self.layers = layers(EMBEDDING + CONTENT + FEATURES, 128, 64, WIDTH)

    def forward(self, categories: Tensor, content: Tensor, features: Tensor) -> Tensor:
        return self.layers(torch.cat([self.category(categories), content, features], -1))


class UserTower(nn.Module):
    """Vectors of histories [b, m, WIDTH], whether each is one [b, m], profiles and segments; queries [b, WIDTH].

    Each head of an attention takes a mean of the history. It has a place of its own to look at, so that a history may be
    empty.
    """

    HEADS, INNER = 4, 64

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.values = nn.Linear(WIDTH, self.HEADS), layers(WIDTH, self.INNER, self.INNER)
        self.nothing = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.segment = small_table(SEGMENTS, EMBEDDING)
        self.layers = layers(self.HEADS * self.INNER + PROFILE + EMBEDDING, 128, WIDTH)

    def forward(self, history: Tensor, there: Tensor, profile: Tensor, segment: Tensor) -> Tensor:
        history, there = with_nothing(self.nothing, history, there)
        attention = (self.heads(history) - 1e9 * (1 - there)[..., None]).softmax(1)
        pooled = (attention.transpose(1, 2) @ self.values(history)).flatten(1)
        return self.layers(torch.cat([pooled, profile, self.segment(segment)], -1))


class Ranker(nn.Module):
    """Logits [b, n] that users click on candidates [b, n]."""

    def __init__(self) -> None:
        super().__init__()
        self.category = small_table(CATEGORIES, EMBEDDING)
        self.bucket = small_table(BUCKETS, EMBEDDING)
        self.segment = small_table(SEGMENTS, EMBEDDING)
        self.query, self.vector = nn.Linear(WIDTH, EMBEDDING), nn.Linear(WIDTH, EMBEDDING)
        self.nothing = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.look_for, self.look_at = nn.Linear(WIDTH, EMBEDDING), nn.Linear(WIDTH, EMBEDDING)
        self.liked = nn.Linear(WIDTH, EMBEDDING)
        # The first layer of the bottom network is two: that of the user is worked out once for all candidates.
        self.of_item, self.of_user = nn.Linear(FEATURES + 3, 64), nn.Linear(PROFILE, 64)
        self.bottom = layers(64, 32, EMBEDDING)
        self.top = layers(EMBEDDING + 21 + 3, 64, 32, 1)
        left, right = zip(*[(a, b) for a in range(7) for b in range(a)])
        self.register_buffer("left", torch.tensor(left), persistent=False)
        self.register_buffer("right", torch.tensor(right), persistent=False)

    def forward(
        self,
        query: Tensor,  # [b, WIDTH]
        history: Tensor,  # [b, m, WIDTH]
        there: Tensor,  # [b, m]
        history_categories: Tensor,  # int64 [b, m]
        profile: Tensor,  # [b, PROFILE]
        segment: Tensor,  # int64 [b]
        ids: Tensor,  # int64 [b, n]
        vectors: Tensor,  # [b, n, WIDTH]
        categories: Tensor,  # int64 [b, n]
        features: Tensor,  # [b, n, FEATURES]
    ) -> Tensor:
        history, there = with_nothing(self.nothing, history, there)
        # How much of the history is of a candidate's category; the place before it is of none.
        history_categories = torch.cat([segment[:, None] * 0 - 1, history_categories], 1)
        same = (categories[..., None] == history_categories[:, None]).float() * there[:, None]
        count = same.sum(-1)
        share = count / there.sum(1)[:, None]
        # Of the history, what is like a candidate.
        attention = self.look_for(vectors) @ self.look_at(history).transpose(1, 2) - 1e9 * (1 - there)[:, None]
        liked = self.liked(attention.softmax(-1) @ history)
        near = (vectors @ query[..., None]) / 8
        close = torch.cat([near, torch.log1p(count)[..., None], share[..., None]], -1)
        dense = self.of_item(torch.cat([features, close], -1)) + self.of_user(profile)[:, None]
        dense = self.bottom(dense.relu())
        every = torch.zeros_like(dense)
        embeddings = [
            dense,
            self.category(categories),
            self.bucket(ids * 2654435761 % 4294967296 % BUCKETS),
            self.segment(segment)[:, None] + every,
            self.query(query)[:, None] + every,
            self.vector(vectors),
            liked,
        ]
        stack = torch.stack(embeddings, 2)
        pairs = (stack[:, :, self.left] * stack[:, :, self.right]).sum(-1)
        return self.top(torch.cat([dense, pairs, close], -1))[..., 0]


def with_nothing(nothing: Tensor, history: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """A history with a place before it that is always there."""
    first = nothing.expand(history.shape[0], -1, -1)
    return torch.cat([first, history], 1), torch.cat([torch.ones_like(first[..., 0]), there], 1)


@dataclass
class Day:
    """What is known on a day, and what users click on in the days after it."""

    history: np.ndarray
    history_offsets: np.ndarray
    features: Tensor
    labels: np.ndarray
    label_offsets: np.ndarray
    # The share of each item in all labels.
    share: Tensor

    def with_labels(self) -> np.ndarray:
        return np.flatnonzero(np.diff(self.label_offsets) > 0)


def known_on(world: World, day: float) -> Day:
    history, history_offsets = world.between(0, day)
    inside = (world.day >= day) & (world.day < day + WINDOW)
    # What is not sold yet cannot be recommended, nor learned from.
    inside &= world.items.released[world.item] <= day
    labels, user = world.item[inside], world.user[inside]
    label_offsets = np.zeros(USERS + 1, np.int64)
    np.cumsum(np.bincount(user, minlength=USERS), out=label_offsets[1:])
    share = torch.from_numpy(np.bincount(labels, minlength=ITEMS) / max(len(labels), 1)).float()
    return Day(history, history_offsets, torch.from_numpy(world.features(day)), labels, label_offsets, share)


def padded(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranges of some users as a table, and where it has values."""
    count = offsets[rows + 1] - offsets[rows]
    column = np.arange(max(count.max(), 1))
    there = column < count[:, None]
    return values[np.where(there, offsets[rows][:, None] + column, 0)], there


class Learner:
    """The world as tensors, and the three networks."""

    def __init__(self, world: World) -> None:
        torch.manual_seed(SEED)
        self.world = world
        self.categories = torch.from_numpy(world.items.category)
        self.content = torch.from_numpy(world.items.content)
        self.profile = torch.from_numpy(world.users.profile)
        self.segment = torch.from_numpy(world.users.segment)
        self.items, self.users, self.ranker = ItemTower(), UserTower(), Ranker()
        self.rng = np.random.default_rng([SEED, 4])

    def vectors(self, ids: Tensor, day: Day) -> Tensor:
        return self.items(self.categories[ids], self.content[ids], day.features[ids])

    def all_vectors(self, day: Day) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.vectors(ids, day) for ids in torch.arange(ITEMS).split(10_000)])

    def towers_loss(self, day: Day, rows: np.ndarray, drawn: int) -> Tensor:
        history, there = padded(day.history, day.history_offsets, rows)
        used, where = np.unique(history, return_inverse=True)
        vectors = self.vectors(torch.from_numpy(used), day)[torch.from_numpy(where.reshape(history.shape))]
        queries = self.users(vectors, torch.from_numpy(there).float(), self.profile[rows], self.segment[rows])
        labels, label_there = padded(day.labels, day.label_offsets, rows)
        user, own = np.nonzero(label_there)[0], labels[label_there]
        ids = np.concatenate([own, self.rng.integers(0, ITEMS, drawn)])
        scores = queries @ self.vectors(torch.from_numpy(ids), day).T
        # How often an item is expected in a batch is taken off, or popular ones would be thought worse than they are.
        scores = scores - torch.log(len(own) * day.share[ids] + drawn / ITEMS)
        # All that the user clicked on is no example of what the user does not want.
        known, number = np.unique(ids, return_inverse=True)
        wanted = np.zeros((len(rows), len(known)), bool)
        wanted[user, number[: len(own)]] = True
        others = scores.masked_fill(torch.from_numpy(wanted[:, number]), -1e9).logsumexp(1)
        right = scores[user, np.arange(len(own))]
        return (torch.logaddexp(others[user], right) - right).mean()

    def train_towers(self, days: list[Day], steps: int, size: int, drawn: int, rate: float) -> None:
        parameters = [*self.items.parameters(), *self.users.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
        began, sum_of = time.perf_counter(), 0.0
        users = [day.with_labels() for day in days]
        for step in range(steps):
            which = int(self.rng.integers(len(days)))
            loss = self.towers_loss(days[which], np.sort(self.rng.choice(users[which], size, replace=False)), drawn)
            step_down(loss, optimiser, schedule, parameters)
            sum_of += loss.item()
            if (step + 1) % 100 == 0 or step + 1 == steps:
                mean, sum_of = sum_of / ((step % 100) + 1), 0.0
                print(f"towers {step + 1:5} of {steps}, loss {mean:.3f}, {time.perf_counter() - began:.0f} s", flush=True)

    def queries(self, day: Day, table: Tensor, rows: np.ndarray) -> Tensor:
        found = []
        with torch.no_grad():
            for part in np.array_split(rows, max(len(rows) // 500, 1)):
                history, there = padded(day.history, day.history_offsets, part)
                vectors = table[torch.from_numpy(history)]
                there = torch.from_numpy(there).float()
                found.append(self.users(vectors, there, self.profile[part], self.segment[part]))
        return torch.cat(found)

    def candidates(self, day: Day, table: Tensor, rows: np.ndarray, queries: Tensor) -> np.ndarray:
        """The nearest items of users, best first, without those of their history; -1 fills up."""
        found = np.full((len(rows), CANDIDATES), -1, np.int32)
        for start in range(0, len(rows), 256):
            best = (queries[start : start + 256] @ table.T).topk(CANDIDATES).indices.numpy()
            for at, ids in enumerate(best, start):
                seen = day.history[day.history_offsets[rows[at]] : day.history_offsets[rows[at] + 1]]
                left = ids[~np.isin(ids, seen)]
                found[at, : len(left)] = left
        return found

    def logits(self, day: Day, table: Tensor, rows: np.ndarray, queries: Tensor, ids: Tensor) -> Tensor:
        history, there = padded(day.history, day.history_offsets, rows)
        history, there = torch.from_numpy(history), torch.from_numpy(there).float()
        user = (self.profile[rows], self.segment[rows])
        item = (ids, table[ids], self.categories[ids], day.features[ids])
        return self.ranker(queries, table[history], there, self.categories[history], *user, *item)

    def train_ranker(self, days: list[Day], passes: int, size: int, rate: float) -> None:
        began = time.perf_counter()
        lists = []
        for day in days:
            table, rows = self.all_vectors(day), day.with_labels()
            queries = self.queries(day, table, rows)
            ids = self.candidates(day, table, rows, queries)
            wanted = np.zeros(ids.shape, bool)
            for at, row in enumerate(rows):
                wanted[at] = np.isin(ids[at], day.labels[day.label_offsets[row] : day.label_offsets[row + 1]])
            # A list without a click says little about their order.
            keep = wanted.any(axis=1)
            lists.append((day, table, rows[keep], queries[torch.from_numpy(keep)], ids[keep], wanted[keep]))
            print(f"ranker: {keep.sum()} lists of {len(rows)} have a click, {time.perf_counter() - began:.0f} s", flush=True)
        plan = [(which, at) for which, group in enumerate(lists) for at in range(len(group[2]) // size)] * passes
        optimiser = torch.optim.AdamW(self.ranker.parameters(), lr=rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=len(plan))
        sum_of = 0.0
        for step, number in enumerate(self.rng.permutation(len(plan))):
            day, table, rows, queries, ids, wanted = lists[plan[number][0]]
            some = np.sort(self.rng.choice(len(rows), size, replace=False))
            known = torch.from_numpy(ids[some].astype(np.int64))
            there, want = known >= 0, torch.from_numpy(wanted[some]).float()
            logits = self.logits(day, table, rows[some], queries[torch.from_numpy(some)], known.clamp(min=0))
            each = F.binary_cross_entropy_with_logits(logits, want, reduction="none")[there].mean()
            # The first part says how likely a click is among these lists, the second makes a good order.
            order = logits.masked_fill(~there, -1e9).log_softmax(1)
            listwise = -((order * want).sum(1) / want.sum(1)).mean()
            loss = 10 * each + listwise
            step_down(loss, optimiser, schedule, self.ranker.parameters())
            sum_of += loss.item()
            if (step + 1) % 100 == 0 or step + 1 == len(plan):
                mean, sum_of = sum_of / ((step % 100) + 1), 0.0
                took = time.perf_counter() - began
                print(f"ranker {step + 1:5} of {len(plan)}, loss {mean:.3f}, {took:.0f} s", flush=True)

    def judge(self, cut: float) -> None:
        """Prints how good retrieval and ranking are on the days after `cut`, before diversification."""
        day = known_on(self.world, cut)
        rows = day.with_labels()
        table = self.all_vectors(day)
        queries = self.queries(day, table, rows)
        ids = self.candidates(day, table, rows, queries)
        popular = self.world.popular(cut, POPULAR)[0][0]
        truth = Truth(day.labels, day.label_offsets, day.history, day.history_offsets, popular)
        found, ranked = [], []
        with torch.no_grad():
            for some in np.array_split(np.arange(len(rows)), max(len(rows) // 100, 1)):
                known = torch.from_numpy(ids[some].astype(np.int64))
                logits = self.logits(day, table, rows[some], queries[torch.from_numpy(some)], known.clamp(min=0))
                ranked += list(known.gather(1, logits.masked_fill(known < 0, -1e9).topk(ANSWERS).indices).numpy())
        for row, those in zip(rows, ids):
            due = truth.due(row)
            found.append(np.isin(due, those).sum() / len(due))
        print(f"day {cut:.0f}, {len(rows)} users: retrieval finds {np.mean(found):.4f} among {CANDIDATES}")
        for name, answers in (
            ("popularity", [truth.popularity(row) for row in rows]),
            ("retrieval", [those[:ANSWERS] for those in ids]),
            ("ranker", ranked),
        ):
            recall, ndcg = measure(truth, rows, answers)
            print(f"  {name:<11} recall@10 {recall:.4f}, NDCG@10 {ndcg:.4f}")


def step_down(loss: Tensor, optimiser: torch.optim.Optimizer, schedule: object, parameters: object) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 5.0)
    optimiser.step()
    schedule.step()


class UserExport(nn.Module):
    """The tower of one user, whose whole history is there."""

    def __init__(self, tower: UserTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, history_vectors: Tensor, profile: Tensor, segment: Tensor) -> Tensor:
        history = history_vectors[None]
        return self.tower(history, torch.ones_like(history[..., 0]), profile, segment)


class RankerExport(nn.Module):
    """The ranker for one user, with scores between 0 and 1."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(
        self,
        query: Tensor,
        history_vectors: Tensor,
        history_categories: Tensor,
        profile: Tensor,
        segment: Tensor,
        ids: Tensor,
        vectors: Tensor,
        categories: Tensor,
        features: Tensor,
    ) -> Tensor:
        there = torch.ones_like(history_vectors[None, :, 0])
        history = (history_vectors[None], there, history_categories[None])
        candidates = (ids[None], vectors[None], categories[None], features[None])
        return self.ranker(query, *history, profile, segment, *candidates)[0].sigmoid()


def example(histories: int, count: int) -> dict[str, dict[str, Tensor]]:
    """Inputs of the three models, by chance."""
    some = torch.Generator().manual_seed(count)
    real = lambda *shape: torch.randn(*shape, generator=some)
    whole = lambda most, *shape: torch.randint(most, shape, generator=some)
    history, user = real(histories, WIDTH), {"profile": real(1, PROFILE), "segment": whole(SEGMENTS, 1)}
    features = real(count, FEATURES)
    return {
        "item_tower": {"categories": whole(CATEGORIES, count), "content": real(count, CONTENT), "features": features},
        "user_tower": {"history_vectors": history, **user},
        "ranker": {
            "query": real(1, WIDTH),
            "history_vectors": history,
            "history_categories": whole(CATEGORIES, histories),
            **user,
            "ids": whole(ITEMS, count),
            "vectors": real(count, WIDTH),
            "categories": whole(CATEGORIES, count),
            "features": features,
        },
    }


def export(name: str, network: nn.Module, output: str, folder: Path) -> None:
    path = folder / f"{name}.onnx"
    inputs = example(5, 7)[name]
    axis = lambda key: "history" if key.startswith("history") else "candidates"
    free = {key: {0: axis(key)} for key in inputs if key not in ("query", "profile", "segment")}
    if name != "user_tower":
        free[output] = {0: "candidates"}
    # That there is a newer exporter is no news; this one writes smaller graphs.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.onnx.export(
        network.eval(),
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes=free,
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(path)
    model.graph.name = name
    onnx.checker.check_model(model)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path)
    # Also without a history, and with one candidate.
    for histories, count in ((5, 7), (0, 200), (60, 1)):
        inputs = example(histories, count)[name]
        with torch.no_grad():
            due = network(*inputs.values()).numpy()
        got = session.run([output], {key: value.numpy() for key, value in inputs.items()})[0]
        apart = float(np.abs(got - due).max())
        if got.shape != due.shape or not apart < 1e-4:
            raise SystemExit(f"{path}: {output} {got.shape} is {apart:.2g} from that of the trained model, {due.shape}")
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, {sum(p.numel() for p in network.parameters())} parameters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="steps of the towers (default %(default)s)")
    parser.add_argument("--passes", type=int, default=2, help="passes of the ranker over its lists (default %(default)s)")
    parser.add_argument("--cut", type=int, default=CHECKED, help="learn from clicks before this day (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads; with others the weights differ a little")
    parser.add_argument("--out", type=Path, default=MODELS, help="where the models go")
    chosen = parser.parse_args()
    if not 20 <= chosen.cut <= CUT:
        parser.error(f"--cut is 20 to {CUT:.0f}")
    if min(chosen.steps, chosen.passes, chosen.threads) < 1:
        parser.error("--steps, --passes and --threads are at least 1")
    torch.set_num_threads(chosen.threads)
    began = time.perf_counter()
    world = make_world(lambda what: print(f"making {what}", flush=True))
    learner = Learner(world)
    days = [known_on(world, day) for day in range(10, chosen.cut - WINDOW + 1, WINDOW)]
    print(f"{len(world.user)} clicks, {len(days)} days to learn from, {time.perf_counter() - began:.0f} s", flush=True)
    learner.train_towers(days, chosen.steps, size=512, drawn=2048, rate=3e-3)
    learner.train_ranker(days[-5:], chosen.passes, size=64, rate=2e-3)
    learner.judge(chosen.cut)
    chosen.out.mkdir(parents=True, exist_ok=True)
    export("item_tower", learner.items, "vectors", chosen.out)
    export("user_tower", UserExport(learner.users), "query", chosen.out)
    export("ranker", RankerExport(learner.ranker), "scores", chosen.out)
    # Tables go with the models only if they are of the same log.
    (chosen.out / "world.json").write_text(json.dumps({"fingerprint": world.fingerprint(), "cut": chosen.cut}) + "\n")
    print(f"all of it took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
