#!/usr/bin/env python3
"""A made-up shop: 100,000 items, 20,000 users and a log of what they clicked on in 60 days. Only NumPy.

Everything is a function of one seed, so that whoever trains, serves or judges has the same shop. What a user clicks on has
structure that is planted here and that a model can find: the user's taste and the item's character, favourite categories,
the price, how popular the item is and how new. The last five days are for judging. Run alone, this prints what came out:

    python examples/recommendation/log.py
"""

import argparse
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SEED = 2026
ITEMS, USERS = 100_000, 20_000
# The log has days 0 to 60; clicks from day 55 on are what a recommender should have said on day 55.
DAYS, CUT = 60.0, 55.0
STYLES = ("small", "large", "garden", "kitchen", "travel", "winter", "vintage", "office", "children's", "outdoor")
KINDS = (
    "lamp chair table clock shirt jacket boots bag tent bottle knife pan book puzzle camera speaker cable plant brush mirror"
).split()
CATEGORIES = len(STYLES) * len(KINDS)
AGE_BANDS, REGIONS = 6, 4
# Segment 0 is for users of whom nothing is known.
SEGMENTS = 1 + AGE_BANDS * REGIONS

# Numbers of a taste and of an item's character, and of what the shop sees of them.
LATENT, CONTENT, SEEN_TASTE = 16, 24, 8
FAVOURITES = 4
# How much each part of the structure counts when a user chooses.
TASTE_OF_CATEGORY, FAVOURITE, TASTE_OF_ITEM, PRICE, NEWNESS, TREND = 1.4, 4.0, 2.0, 0.6, 1.5, 0.5
NEW_DAYS, TREND_DAYS = 7.0, 30.0
# Columns that are first looked at as one where one of many is drawn.
BLOCK = 32


@dataclass(frozen=True)
class Items:
    """What the shop knows of its items."""

    category: np.ndarray  # int64 [ITEMS]
    content: np.ndarray  # float32 [ITEMS, CONTENT]: a description of the item's character, with noise
    log_price: np.ndarray  # float64 [ITEMS]
    released: np.ndarray  # float64 [ITEMS]: the day from which on it is sold


@dataclass(frozen=True)
class Users:
    """What the shop knows of its users."""

    ids: np.ndarray  # int64 [USERS], ascending: numbers of accounts
    profile: np.ndarray  # float32 [USERS, SEEN_TASTE + 2]: answers about taste, with noise; price; age
    segment: np.ndarray  # int64 [USERS]: 1 to SEGMENTS - 1


@dataclass(frozen=True)
class Hidden:
    """What nobody knows: why users click. A model has to find it in the log."""

    centre: np.ndarray  # [CATEGORIES, LATENT]
    offset: np.ndarray  # [ITEMS, LATENT]: an item's character, beside that of its category
    popularity: np.ndarray  # [ITEMS], a logarithm
    phase: np.ndarray  # [ITEMS]: when the item is in fashion
    taste: np.ndarray  # [USERS, LATENT]
    favourites: np.ndarray  # int64 [USERS, FAVOURITES]: categories
    price: np.ndarray  # [USERS]: the logarithm of the price that suits


@dataclass(frozen=True)
class World:
    """The shop and its log, which is in the order of users and, for each of them, of time."""

    items: Items
    users: Users
    hidden: Hidden
    user: np.ndarray  # int64 [clicks]: rows of users, not their ids
    item: np.ndarray  # int64 [clicks]
    day: np.ndarray  # float64 [clicks]

    def between(self, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """What each user clicked on in these days, oldest first: items, and for user u the range offsets[u] to [u + 1]."""
        inside = (self.day >= start) & (self.day < end)
        offsets = np.zeros(USERS + 1, np.int64)
        np.cumsum(np.bincount(self.user[inside], minlength=USERS), out=offsets[1:])
        return self.item[inside], offsets

    def clicks(self, start: float, end: float) -> np.ndarray:
        """How often each item was clicked on in these days."""
        return np.bincount(self.item[(self.day >= start) & (self.day < end)], minlength=ITEMS)

    def features(self, day: float) -> np.ndarray:
        """Numbers of each item as they are known on a day, float32 [ITEMS, 5]: price, how new, how popular."""
        age = np.maximum(day - self.items.released, 0)
        sold = np.minimum(age, day)
        columns = [
            self.items.log_price - 3,
            np.exp(-age / NEW_DAYS),
            np.log1p(age) / 3 - 1.5,
            np.log((self.clicks(0, day) + 0.5) / (sold + 5)) + 2,
            np.log1p(self.clicks(day - 7, day)) - 0.5,
        ]
        return np.column_stack(columns).astype(np.float32)

    def popular(self, day: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The items with the most clicks in the week before a day, best first, and each one's share of the clicks.

        Rows are segments of users; row 0 is all users.
        """
        recent = (self.day >= day - 7) & (self.day < day)
        segment, item = self.users.segment[self.user[recent]], self.item[recent]
        table = np.bincount(segment * ITEMS + item, minlength=SEGMENTS * ITEMS).reshape(SEGMENTS, ITEMS)
        table[0] = table.sum(axis=0)
        best = np.argsort(-table, axis=1, kind="stable")[:, :count]
        share = np.take_along_axis(table, best, axis=1) / np.maximum(table.sum(axis=1, keepdims=True), 1)
        return best.astype(np.int64), share.astype(np.float32)

    def name(self, item: int) -> str:
        return f"{category_name(int(self.items.category[item]))} {item}"

    def fingerprint(self) -> str:
        """Eight digits that differ if the log does."""
        return f"{zlib.crc32(self.item.astype('<i8').tobytes(), zlib.crc32(self.user.astype('<i8').tobytes())):08x}"


def category_name(category: int) -> str:
    return f"{STYLES[category // len(KINDS)]} {KINDS[category % len(KINDS)]}"


def stream(part: int) -> np.random.Generator:
    """Random numbers of one part of the shop, which do not depend on those of the others."""
    return np.random.default_rng([SEED, part])


def make_items() -> tuple[Items, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    rng = stream(1)
    size = rng.lognormal(0, 0.5, CATEGORIES)
    category = np.sort(rng.choice(CATEGORIES, ITEMS, p=size / size.sum()))
    rng.shuffle(category)
    centre = rng.normal(0, LATENT**-0.5, (CATEGORIES, LATENT))
    offset = rng.normal(0, LATENT**-0.5, (ITEMS, LATENT))
    # By Zipf: the item of rank r is clicked on in proportion to (r + 20) ** -0.8, as far as only popularity counts.
    popularity = -0.8 * np.log(rng.permutation(ITEMS) + 20.0)
    phase = rng.uniform(0, 2 * np.pi, ITEMS)
    log_price = rng.normal(3, 0.6, CATEGORIES)[category] + rng.normal(0, 0.5, ITEMS)
    # Of ten items three are released while the log runs; none in the days for judging.
    released = np.where(rng.random(ITEMS) < 0.3, rng.uniform(0, CUT, ITEMS), rng.uniform(-365, 0, ITEMS))
    mix = np.linalg.qr(rng.normal(size=(CONTENT, LATENT)))[0].T
    content = (centre[category] + offset) @ mix + rng.normal(0, 0.1, (ITEMS, CONTENT))
    items = Items(category.astype(np.int64), content.astype(np.float32), log_price, released)
    return items, (centre, offset, popularity, phase)


def make_users(popular_categories: np.ndarray) -> tuple[Users, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = stream(2)
    ids = np.sort(rng.choice(np.arange(100_000, 1_000_000), USERS, replace=False)).astype(np.int64)
    age, region = rng.integers(0, AGE_BANDS, USERS), rng.integers(0, REGIONS, USERS)
    segment = (1 + age * REGIONS + region).astype(np.int64)
    common = rng.normal(size=(SEGMENTS, LATENT))
    taste = 0.6 * common[segment] + 0.8 * rng.normal(size=(USERS, LATENT))
    # Without Gumbel's noise everybody would have the same favourites; with it each is drawn once, as popular as it is.
    drawn = popular_categories + rng.gumbel(size=(USERS, CATEGORIES))
    favourites = np.argpartition(-drawn, FAVOURITES, axis=1)[:, :FAVOURITES]
    price = rng.normal(3, 0.5, USERS)
    answers = taste @ rng.normal(0, LATENT**-0.5, (LATENT, SEEN_TASTE)) + rng.normal(0, 0.5, (USERS, SEEN_TASTE))
    others = [2 * (price - 3) + rng.normal(0, 0.5, USERS), age / 2.5 - 1]
    profile = np.column_stack([answers, *others]).astype(np.float32)
    return Users(ids, profile, segment), (taste, favourites, price)


def category_weights(hidden: Hidden, popular_categories: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How much these users want each category, [rows, CATEGORIES]."""
    score = TASTE_OF_CATEGORY * hidden.taste[rows] @ hidden.centre.T + popular_categories
    np.put_along_axis(score, hidden.favourites[rows], np.take_along_axis(score, hidden.favourites[rows], 1) + FAVOURITE, 1)
    return np.exp(score)


def item_weights(items: Items, hidden: Hidden, which: np.ndarray, rows: np.ndarray, day: np.ndarray) -> np.ndarray:
    """How much these users want each item of `which` on their days, [rows, which].

    Each part of the structure is a product of something of the click and something of the item, so that all are one
    product of matrices.
    """
    turn = 2 * np.pi * day / TREND_DAYS
    of_click = [
        TASTE_OF_ITEM * hidden.taste[rows],
        2 * PRICE * hidden.price[rows, None],
        NEWNESS * np.exp(-day / NEW_DAYS)[:, None],
        TREND * np.column_stack([np.sin(turn), np.cos(turn)]),
        np.ones((len(rows), 1)),
    ]
    price = items.log_price[which]
    of_item = [
        hidden.offset[which],
        price[:, None],
        np.exp(items.released[which] / NEW_DAYS)[:, None],
        np.column_stack([np.cos(hidden.phase[which]), np.sin(hidden.phase[which])]),
        (hidden.popularity[which] - PRICE * price**2)[:, None],
    ]
    score = np.hstack(of_click) @ np.hstack(of_item).T
    # An item that is not released yet has a newness without end.
    first = int(np.argmax(items.released[which] > 0))
    np.copyto(score[:, first:], -np.inf, where=items.released[which[first:]] > day[:, None])
    return np.exp(score, out=score)


def draw(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """For each row one column, by chance in proportion to its weight: first a block of columns, then one of the block."""
    rows, columns = weights.shape
    blocks = -(-columns // BLOCK)
    weights = np.pad(weights, ((0, 0), (0, blocks * BLOCK - columns))).reshape(rows, blocks, BLOCK)
    upto = np.cumsum(weights.sum(axis=2), axis=1)
    left = rng.random(rows) * upto[:, -1]
    block = np.minimum((upto <= left[:, None]).sum(axis=1), blocks - 1)
    left -= np.where(block > 0, upto[np.arange(rows), block - 1], 0)
    inside = np.cumsum(weights[np.arange(rows), block], axis=1)
    # A sum that was rounded otherwise must not lead past the last column that has a weight.
    at = np.minimum((inside <= left[:, None]).sum(axis=1), (inside < inside[:, -1:]).sum(axis=1))
    return block * BLOCK + at


def make_log(items: Items, hidden: Hidden, popular_categories: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items and days of all clicks."""
    rng = stream(3)
    count = rng.lognormal(np.log(45), 0.6, USERS).clip(5, 120).astype(np.int64)
    user = np.repeat(np.arange(USERS), count)
    day = rng.uniform(0, DAYS, len(user))
    category = np.empty(len(user), np.int64)
    for first in range(0, USERS, 1000):
        here = np.flatnonzero((user >= first) & (user < first + 1000))
        weights = category_weights(hidden, popular_categories, np.arange(first, min(first + 1000, USERS)))
        for part in np.array_split(here, max(len(here) // 5000, 1)):
            category[part] = draw(rng, weights[user[part] - first])
    item = np.empty(len(user), np.int64)
    by_category = np.argsort(category, kind="stable")
    ends = np.cumsum(np.bincount(category, minlength=CATEGORIES))
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends)):
        which = np.flatnonzero(items.category == number)
        which = which[np.argsort(items.released[which])]
        here = by_category[start:end]
        for part in np.array_split(here, max(len(here) * len(which) // 1_000_000, 1)):
            item[part] = which[draw(rng, item_weights(items, hidden, which, user[part], day[part]))]
    # Nobody clicks on the same item twice: the first click counts.
    order = np.lexsort((day, user))
    user, item, day = user[order], item[order], day[order]
    first = np.sort(np.unique(user * ITEMS + item, return_index=True)[1])
    return user[first], item[first], day[first]


def make_world(say: Callable[[str], None] = lambda _: None) -> World:
    """The shop. It takes some ten seconds; `say` is told what is being made."""
    say("items and users")
    items, (centre, offset, popularity, phase) = make_items()
    popular_categories = np.log(np.bincount(items.category, np.exp(popularity), CATEGORIES))
    users, (taste, favourites, price) = make_users(popular_categories)
    hidden = Hidden(centre, offset, popularity, phase, taste, favourites, price)
    say("the log")
    return World(items, users, hidden, *make_log(items, hidden, popular_categories))


def best_possible(world: World, rows: np.ndarray, count: int) -> np.ndarray:
    """What somebody would say to these users on day CUT who knows all that is hidden: items [rows, count], best first."""
    items, hidden = world.items, world.hidden
    popular_categories = np.log(np.bincount(items.category, np.exp(hidden.popularity), CATEGORIES))
    seen, offsets = world.between(0, CUT)
    every = np.arange(ITEMS)
    best = np.empty((len(rows), count), np.int64)
    for at, row in enumerate(rows):
        one = np.array([row])
        weights = item_weights(items, hidden, every, one, np.array([CUT]))[0]
        wanted = category_weights(hidden, popular_categories, one)[0]
        weights *= (wanted / np.bincount(items.category, weights, CATEGORIES))[items.category]
        weights[seen[offsets[row] : offsets[row + 1]]] = 0
        some = np.argpartition(-weights, count)[:count]
        best[at] = some[np.argsort(-weights[some], kind="stable")]
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=500, help="users that the best possible recall is worked out for")
    chosen = parser.parse_args()
    if not 1 <= chosen.users <= USERS:
        parser.error(f"--users is 1 to {USERS}")
    began = time.perf_counter()
    world = make_world(lambda what: print(f"{time.perf_counter() - began:5.1f} s  {what}", flush=True))
    print(f"{time.perf_counter() - began:5.1f} s  {len(world.user)} clicks, fingerprint {world.fingerprint()}")
    due, offsets = world.between(CUT, DAYS)
    held = np.diff(offsets)
    print(f"users with clicks in the last {DAYS - CUT:.0f} days: {(held > 0).sum()}, {held[held > 0].mean():.2f} clicks each")
    seen = np.diff(world.between(0, CUT)[1])
    print(f"clicks before, by user: {seen.min()} to {seen.max()}, {np.median(seen):.0f} in the middle")
    clicks = np.sort(world.clicks(0, DAYS))[::-1]
    print(f"the 1,000 most popular items have {clicks[:1000].sum() / clicks.sum():.1%} of clicks; {(clicks == 0).sum()} have none")
    rows = np.flatnonzero(held > 0)[: chosen.users]
    best = best_possible(world, rows, 10)
    recall = [np.isin(best[at], due[offsets[r] : offsets[r + 1]]).sum() / min(held[r], 10) for at, r in enumerate(rows)]
    print(f"best possible recall@10, with all that is hidden known: {np.mean(recall):.4f} of {len(rows)} users")


if __name__ == "__main__":
    main()
