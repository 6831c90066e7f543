#!/usr/bin/env python3
"""Train the example's detector on drawn scenes and write models/detector/1/model.onnx.

A small convolutional network with the output of a YOLOv8 export: [1, 4 + classes, places], each place the middle, width and
height of a box in pixels and a score for each class. It is trained on small pictures and served at 640 x 640: a convolution
does not ask how large a picture is. Everything is seeded. Run it with tools/python/requirements-train-detection.txt:

    python examples/object-detection/train.py
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from scenes import CLASSES, scene
from torch import Tensor, nn
from torch.nn import functional as F

MODEL = Path(__file__).parent / "models/detector/1/model.onnx"
# Pixels on a side of a picture to train on, of one that is served, and of a place.
TILE, SERVED, STRIDE = 224, 640, 8
# Scenes from here on are for judging.
UNSEEN = 1_000_000


def convolve(inner: int, outer: int, size: int, **kind: int) -> nn.Sequential:
    """A convolution and a normalisation, which are one when the model is written."""
    return nn.Sequential(nn.Conv2d(inner, outer, size, bias=False, **kind), nn.BatchNorm2d(outer))


def halve(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(convolve(inner, outer, 3, stride=2, padding=1), nn.ReLU())


class Block(nn.Module):
    """Looks around in each channel, then mixes the channels; the input goes on beside it."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        around = convolve(width, width, 3, padding=dilation, dilation=dilation, groups=width)
        self.all = nn.Sequential(around, convolve(width, 2 * width, 1), nn.ReLU(), convolve(2 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.all(x)


class Detector(nn.Module):
    """From pixels [n, 3, height, width] in 0 to 1 to the logits and boxes of every place, one for 8 x 8 pixels."""

    def __init__(self, near: int = 48, far: int = 64) -> None:
        super().__init__()
        self.near = nn.Sequential(halve(3, 16), halve(16, 24), halve(24, near), Block(near), Block(near))
        self.far = nn.Sequential(halve(near, far), *(Block(far, dilation) for dilation in (1, 2, 3, 1)))
        self.both = nn.Sequential(convolve(near + far, far, 1), nn.ReLU(), Block(far))
        self.sides, self.classes = nn.Conv2d(far, 4, 1), nn.Conv2d(far, len(CLASSES), 1)
        # Nearly all places are empty, and a box is some 40 pixels wide.
        nn.init.constant_(self.classes.bias, -4.6)
        nn.init.constant_(self.sides.bias, 2.5)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        near = self.near(pixels)
        far = F.interpolate(self.far(near), scale_factor=2.0, mode="nearest")
        both = self.both(torch.cat([near, far], 1))
        # Distances from the middle of the place to the sides, in pixels.
        return self.classes(both), F.softplus(self.sides(both)) * STRIDE


class Export(nn.Module):
    """The detector with the output of a YOLOv8 export."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        middle = (torch.arange(SERVED // STRIDE) + 0.5) * STRIDE
        self.register_buffer("x", middle.view(1, 1, 1, -1))
        self.register_buffer("y", middle.view(1, 1, -1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits, sides = self.detector(images)
        left, top, right, bottom = sides.split(1, 1)
        boxes = [self.x + (right - left) / 2, self.y + (bottom - top) / 2, left + right, top + bottom]
        return torch.cat([*boxes, logits.sigmoid()], 1).flatten(2)


def targets(boxes: np.ndarray, classes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """For each place the class to say, or -1, and the distances to the sides of its box."""
    places = side // STRIDE
    middle = (np.arange(places) + 0.5) * STRIDE
    say = np.full((places, places), -1, np.int64)
    sides = np.zeros((4, places, places), np.float32)
    for (left, top, right, bottom), kind in zip(boxes, classes):
        # Places near the middle of an object tell of it: at least one, and more of a larger object.
        x, y, near = (left + right) / 2, (top + bottom) / 2, max(0.75 * STRIDE, 0.15 * (right - left))
        rows, columns = np.where((abs(middle[:, None] - y) <= near) & (abs(middle[None, :] - x) <= near))
        say[rows, columns] = kind
        at_x, at_y = middle[columns], middle[rows]
        sides[:, rows, columns] = [at_x - left, at_y - top, right - at_x, bottom - at_y]
    return say, sides


def batch(number: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels and targets of `size` scenes."""
    drawn = [scene(number * size + at, TILE, most=5) for at in range(size)]
    pixels = np.stack([pixels.transpose(2, 0, 1) for pixels, _, _ in drawn])
    say, sides = zip(*(targets(boxes, classes, TILE) for _, boxes, classes in drawn))
    return torch.from_numpy(pixels).float() / 255, torch.from_numpy(np.stack(say)), torch.from_numpy(np.stack(sides))


def overlap(got: Tensor, due: Tensor) -> Tensor:
    """What boxes around the same places share of their union."""
    shared = torch.minimum(got, due)
    inner = (shared[:, 0] + shared[:, 2]) * (shared[:, 1] + shared[:, 3])
    area = lambda of: (of[:, 0] + of[:, 2]) * (of[:, 1] + of[:, 3])
    return inner / (area(got) + area(due) - inner + 1e-6)


def loss_of(logits: Tensor, sides: Tensor, say: Tensor, due: Tensor) -> Tensor:
    there = say >= 0
    fit = overlap(sides.permute(0, 2, 3, 1)[there], due.permute(0, 2, 3, 1)[there])
    # A place is to be as sure of its class as its box is good: of boxes that overlap the best is kept then.
    truth = torch.zeros_like(logits).permute(0, 2, 3, 1)
    truth[there] = F.one_hot(say[there], len(CLASSES)) * fit.detach()[:, None]
    truth = truth.permute(0, 3, 1, 2)
    # What is right already counts for little, which most places are soon.
    weight = (logits.sigmoid() - truth).detach() ** 2
    classes = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * weight).sum()
    return (classes + 2 * (1 - fit).sum()) / there.sum().clamp(min=1)


def train(steps: int, size: int, rate: float) -> Detector:
    torch.manual_seed(2026)
    detector = Detector().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(detector.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    began, losses = time.perf_counter(), []
    for step in range(steps):
        pixels, say, due = batch(step, size)
        loss = loss_of(*detector(pixels.contiguous(memory_format=torch.channels_last)), say, due)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            mean = np.mean(losses[-100:])
            print(f"step {step + 1:5} of {steps}, loss {mean:.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    return detector.eval()


def export(detector: Detector, path: Path) -> None:
    """Writes the model, and ends with an error if it does not answer as the one that was trained."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = Export(detector).eval()
    torch.onnx.export(
        whole,
        (torch.zeros(1, 3, SERVED, SERVED),),
        str(path),
        input_names=["images"],
        output_names=["output0"],
        dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load(path)
    onnx.checker.check_model(model)
    model.graph.name = "detector"
    path.write_bytes(model.SerializeToString(deterministic=True))
    pixels = np.stack([scene(UNSEEN + at)[0].transpose(2, 0, 1) for at in range(2)]).astype(np.float32) / 255
    with torch.no_grad():
        due = whole(torch.from_numpy(pixels)).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    apart = float(np.abs(session.run(["output0"], {"images": pixels})[0] - due).max())
    if not apart < 0.01:
        sys.exit(f"{path}: answers are up to {apart:.2g} from those of the trained model")
    count = sum(numbers.numel() for numbers in detector.parameters())
    print(f"{path}: {path.stat().st_size} bytes, {count} parameters, at most {apart:.1g} from the trained model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000, help="batches to learn from (default 4000)")
    parser.add_argument("--batch", type=int, default=8, help="scenes in a batch (default 8)")
    parser.add_argument("--rate", type=float, default=4e-3, help="the highest rate of learning (default 0.004)")
    # Pictures are so small that threads would wait for each other most of the time.
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; another number, another model (default 1)")
    parser.add_argument("--out", type=Path, default=MODEL, help="where the model goes")
    chosen = parser.parse_args()
    if min(chosen.steps, chosen.batch, chosen.threads) < 1:
        parser.error("--steps, --batch and --threads are 1 at least")
    if chosen.steps * chosen.batch > UNSEEN:
        parser.error(f"scenes from {UNSEEN} on are for judging: fewer steps, or a smaller batch")
    torch.set_num_threads(chosen.threads)
    export(train(chosen.steps, chosen.batch, chosen.rate), chosen.out)


if __name__ == "__main__":
    main()
