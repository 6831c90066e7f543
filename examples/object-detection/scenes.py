#!/usr/bin/env python3
"""Drawn scenes with known objects: circles, squares and triangles over a noisy background. Only NumPy.

A scene is a function of its number alone, so that whoever trains, serves or judges draws the same one.
"""

import numpy as np

CLASSES = ("circle", "square", "triangle")

# Objects in pixels; a scene may be of any size, an object is not.
SMALLEST, LARGEST = 20, 72


def scene(number: int, side: int = 640, most: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture, uint8 [side, side, 3], with its boxes (left, top, right, bottom), float32 [n, 4], and classes, int64 [n]."""
    rng = np.random.default_rng([2026, number, side])
    picture = background(rng, side)
    boxes, classes = [], []
    for _ in range(int(rng.integers(1, most + 1))):
        box = place(rng, side, boxes)
        if box is None:
            continue
        kind = int(rng.integers(len(CLASSES)))
        boxes.append(draw(rng, picture, kind, box))
        classes.append(kind)
    noisy = picture + rng.normal(0, rng.uniform(0, 12), picture.shape)
    return noisy.clip(0, 255).astype(np.uint8), np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64)


def background(rng: np.random.Generator, side: int) -> np.ndarray:
    """Two colours that run into each other, with stripes."""
    first, second = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:side, 0:side] / side
    along = (x * np.cos(angle) + y * np.sin(angle) + 1) / 2
    stripes = np.sin(along * rng.uniform(10, 60))[..., None] * rng.uniform(0, 20)
    return first + (second - first) * along[..., None] + stripes


def place(rng: np.random.Generator, side: int, others: list) -> tuple[float, float, float] | None:
    """Middle and size of an object that hides no other, or none if there is no room."""
    for _ in range(20):
        size = rng.uniform(SMALLEST, LARGEST)
        x, y = rng.uniform(size / 2, side - size / 2, 2)
        box = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
        if all(box[2] < a[0] or a[2] < box[0] or box[3] < a[1] or a[3] < box[1] for a in others):
            return x, y, size
    return None


def draw(rng: np.random.Generator, picture: np.ndarray, kind: int, at: tuple[float, float, float]) -> tuple:
    """Draws an object and returns its box."""
    x, y, size = at
    side = picture.shape[0]
    left, top = max(int(x - size / 2) - 1, 0), max(int(y - size / 2) - 1, 0)
    right, bottom = min(int(x + size / 2) + 2, side), min(int(y + size / 2) + 2, side)
    rows, columns = np.mgrid[top:bottom, left:right]
    across, down = columns + 0.5 - x, rows + 0.5 - y
    half = size / 2
    match CLASSES[kind]:
        case "circle":
            inside = across**2 + down**2 <= half**2
        case "square":
            inside = np.maximum(abs(across), abs(down)) <= half
        case _:
            inside = (down <= half) & (abs(across) <= (down + half) / 2)
    patch = picture[top:bottom, left:right]
    # A colour that is told from what is behind it.
    while True:
        colour = rng.uniform(0, 255, 3)
        if abs(colour - patch.mean((0, 1))).max() > 60:
            break
    patch[inside] = colour + rng.normal(0, 6, (int(inside.sum()), 1))
    return (x - half, y - half, x + half, y + half)
