#!/usr/bin/env python3
"""What Pillow, OpenCV and torchvision make of the same inputs: the references of the steps' tests.

    pip install -r tools/python/requirements-steps.txt
    python tools/python/make_step_references.py

writes crates/steps/tests/reference/steps.json. Pixels and files are in hexadecimal.
"""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageOps

OUT = Path(__file__).parents[2] / "crates/steps/tests/reference/steps.json"
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def picture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Something with edges, slopes and noise."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(2, 9)) + np.cos(y / rng.uniform(2, 9)) for _ in range(3)]
    pixels = np.stack(waves, -1) * 60 + 128 + rng.normal(0, 12, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
    return pixels.clip(0, 255).astype(np.uint8)


def resizes(rng: np.random.Generator) -> list[dict]:
    cases = []
    for (width, height), (wide, high) in [((37, 23), (16, 9)), ((16, 9), (37, 23)), ((40, 30), (13, 31)), ((5, 5), (5, 11)), ((9, 2), (3, 1))]:
        pixels = picture(rng, width, height)
        for name, kind in FILTERS.items():
            out = np.asarray(Image.fromarray(pixels).resize((wide, high), kind))
            case = {"filter": name, "from": [width, height], "to": [wide, high]}
            cases.append(case | {"pixels": pixels.tobytes().hex(), "out": out.tobytes().hex()})
    return cases


def opencv(rng: np.random.Generator) -> list[dict]:
    """OpenCV's INTER_AREA where a picture shrinks by whole factors, and its INTER_LINEAR where it grows."""
    cases = []
    for (width, height), factor in [((36, 24), 2), ((36, 24), 3), ((40, 20), 4)]:
        pixels = picture(rng, width, height)
        out = cv2.resize(pixels, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        case = {"filter": "area", "from": [width, height], "to": [width // factor, height // factor]}
        cases.append(case | {"pixels": pixels.tobytes().hex(), "out": out.tobytes().hex()})
    for (width, height), (wide, high) in [((12, 9), (24, 18)), ((11, 7), (33, 28))]:
        pixels = picture(rng, width, height)
        out = cv2.resize(pixels, (wide, high), interpolation=cv2.INTER_LINEAR)
        case = {"filter": "bilinear", "from": [width, height], "to": [wide, high]}
        cases.append(case | {"pixels": pixels.tobytes().hex(), "out": out.tobytes().hex()})
    return cases


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def files(rng: np.random.Generator) -> list[dict]:
    """Files of every kind, with the pixels that Pillow reads of them, upright and as RGB."""
    rgb = Image.fromarray(picture(rng, 24, 17))
    grey, cmyk = rgb.convert("L"), rgb.convert("CMYK")
    deep = Image.fromarray((np.asarray(grey).astype(np.uint16) << 8) | 7)
    exif = Image.Exif()
    packed = {
        "jpeg": saved(rgb, "JPEG", quality=95, subsampling=0),
        "jpeg-420": saved(rgb, "JPEG", quality=90, subsampling=2),
        "jpeg-progressive": saved(rgb, "JPEG", quality=90, progressive=True),
        "jpeg-grey": saved(grey, "JPEG", quality=95),
        "jpeg-cmyk": saved(cmyk, "JPEG", quality=95),
        "png": saved(rgb, "PNG"),
        "png-grey": saved(grey, "PNG"),
        "png-palette": saved(rgb.quantize(16), "PNG"),
        "png-1-bit": saved(grey.convert("1"), "PNG"),
        "png-16-bit": saved(deep, "PNG"),
        "webp-lossless": saved(rgb, "WEBP", lossless=True),
        "webp": saved(rgb, "WEBP", quality=90),
    }
    for turn in range(1, 9):
        exif[0x0112] = turn
        packed[f"jpeg-turned-{turn}"] = saved(rgb, "JPEG", quality=95, subsampling=0, exif=exif)
    cases = []
    for name, file in packed.items():
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
        # Of 16 bits the upper eight are meant; Pillow itself would cut off what is above 255.
        pixels = np.asarray(grey.convert("RGB") if name == "png-16-bit" else image.convert("RGB"))
        height, width, _ = pixels.shape
        cases.append({"name": name, "file": file.hex(), "size": [width, height], "pixels": pixels.tobytes().hex()})
    animated = [Image.fromarray(picture(rng, 24, 17)) for _ in range(3)]
    for kind in ("WEBP", "PNG"):
        how = {"lossless": True} if kind == "WEBP" else {}
        file = saved(animated[0], kind, save_all=True, append_images=animated[1:], duration=100, **how)
        pixels = np.asarray(animated[0])
        cases.append({"name": f"{kind.lower()}-animated", "file": file.hex(), "size": [24, 17], "pixels": pixels.tobytes().hex()})
    return cases


def suppressed(rng: np.random.Generator) -> list[dict]:
    """torchvision's batched_nms, which keeps classes apart, and its nms, which does not."""
    cases = []
    for count, threshold in [(0, 0.5), (1, 0.5), (60, 0.3), (200, 0.5), (200, 0.7), (40, 0.0)]:
        corner = rng.uniform(0, 80, (count, 2)).astype(np.float32)
        boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2)).astype(np.float32)], 1)
        scores, classes = rng.permutation(count).astype(np.float32) / max(count, 1), rng.integers(0, 3, count)
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
        apart = torchvision.ops.batched_nms(*tensors, torch.from_numpy(classes), threshold)
        together = torchvision.ops.nms(*tensors, threshold)
        case = {"iou": threshold, "boxes": boxes.ravel().tolist(), "scores": scores.tolist(), "classes": classes.tolist()}
        cases.append(case | {"by_class": apart.tolist(), "together": together.tolist()})
    return cases


def main() -> None:
    rng = np.random.default_rng(2026)
    made = {
        "made_by": "tools/python/make_step_references.py",
        "with": {"Pillow": PIL.__version__, "OpenCV": cv2.__version__, "torchvision": torchvision.__version__},
        "resize": resizes(rng),
        "opencv": opencv(rng),
        "files": files(rng),
        "nms": suppressed(rng),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(made, separators=(",", ":")) + "\n")
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
