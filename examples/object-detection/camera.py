#!/usr/bin/env python3
"""A camera: sends pictures of a folder, or of an MJPEG file, through one gRPC stream, and prints what is found on them.

    python examples/object-detection/camera.py pictures --fps 30 --max-age-ms 100
    python examples/object-detection/camera.py clip.mjpeg --save /tmp/annotated

Answers come in the order of the frames. With --max-age-ms the server leaves out a frame that has become too old by the time
it would be worked on, and says so in its place: a camera wants the newest picture, not every one.
"""

import argparse
import collections
import mmap
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import numpy as np
    import tritonclient.grpc as client
    from scenes import CLASSES
except ImportError as error:
    sys.exit(f"{error}\nget it with: pip install -r tools/python/requirements-clients.txt")

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class Failed(Exception):
    """Why it does not go on."""


def pictures(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and file of each picture."""
    if source.is_dir():
        for file in sorted(file for file in source.iterdir() if file.suffix.lower() in SUFFIXES):
            yield file.name, file.read_bytes()
    elif source.stat().st_size:
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            at = whole.find(b"\xff\xd8")
            while at >= 0:
                end = end_of(whole, at)
                if end is None:
                    print(f"{source}: the last picture is cut off, and left out", file=sys.stderr)
                    return
                yield f"{source.name} at {at}", whole[at:end]
                at = whole.find(b"\xff\xd8", end)


def end_of(whole: mmap.mmap, start: int) -> int | None:
    """Where the JPEG that begins at `start` ends, or none if it is cut off.

    Segments are stepped over by their lengths: one may hold a small picture, with an end of its own.
    """
    at = start + 2
    while (at := whole.find(b"\xff", at)) >= 0 and at + 1 < len(whole):
        match whole[at + 1]:
            case 0xD9:
                return at + 2
            # A byte of the picture that only looks like a marker, filling, and markers without a segment.
            case 0x00 | 0x01 | 0xD0 | 0xD1 | 0xD2 | 0xD3 | 0xD4 | 0xD5 | 0xD6 | 0xD7 | 0xD8:
                at += 2
            case 0xFF:
                at += 1
            case _:
                at += 2 + int.from_bytes(whole[at + 2 : at + 4], "big")
    return None


def counted(source: Path, repeat: int) -> Iterator[tuple[str, bytes]]:
    """The pictures, as many times over as is asked for."""
    if not source.exists():
        raise Failed(f"there is no {source}: name a folder of pictures or an MJPEG file")
    for _ in range(repeat):
        some = False
        for one in pictures(source):
            some = True
            yield one
        if not some:
            kinds = ", ".join(sorted(SUFFIXES))
            raise Failed(f"{source} has no pictures: {f'none of its files is {kinds}' if source.is_dir() else 'it is no MJPEG'}")


class Camera:
    """Frames on their way, and what became of those that are back."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.connection = client.InferenceServerClient(chosen.url)
        self.answers: queue.SimpleQueue = queue.SimpleQueue()
        # Number, name and time of each frame that has no answer yet, the oldest first.
        self.pending: collections.deque[tuple[int, str, float]] = collections.deque()
        self.sent, self.held, self.dropped, self.failed, self.objects = 0, 0, 0, 0, 0
        self.latencies: list[float] = []
        outputs = ["boxes", "scores", "classes", *(["image"] if chosen.save else [])]
        self.outputs = [client.InferRequestedOutput(name) for name in outputs]
        self.parameters = {"max_age_ms": chosen.max_age_ms} if chosen.max_age_ms else None

    def open(self) -> None:
        try:
            ready = self.connection.is_model_ready(self.chosen.model, client_timeout=10)
        except client.InferenceServerException as error:
            raise Failed(f"{self.chosen.model} at {self.chosen.url}: {error.message()}") from error
        if not ready:
            raise Failed(f"{self.chosen.url} does not serve {self.chosen.model}")
        note = lambda result, error: self.answers.put((time.perf_counter(), result, error))
        self.connection.start_stream(note)

    def close(self, at_once: bool) -> None:
        self.connection.stop_stream(cancel_requests=at_once)
        self.connection.close()

    def send(self, name: str, picture: bytes) -> None:
        image = client.InferInput("image", [1], "BYTES")
        image.set_data_from_numpy(np.array([picture], dtype=object))
        number, self.sent = self.sent, self.sent + 1
        self.pending.append((number, name, time.perf_counter()))
        model, parameters = self.chosen.model, self.parameters
        self.connection.async_stream_infer(model, [image], request_id=str(number), outputs=self.outputs, parameters=parameters)

    def run(self) -> None:
        """Sends frames when they are due, and takes answers until then."""
        gap = 1 / self.chosen.fps if self.chosen.fps else 0.0
        due, waited = time.perf_counter(), False
        frames = counted(self.chosen.source, self.chosen.repeat)
        coming = next(frames, None)
        while coming or self.pending:
            full = len(self.pending) >= self.chosen.in_flight
            late = time.perf_counter() - due
            if coming and not full and late >= 0:
                self.send(*coming)
                self.held, waited = self.held + waited, False
                # Frames that could not be sent in time are not caught up with.
                due += max(gap, late if late > gap else 0.0)
                coming = next(frames, None)
                continue
            waited = waited or bool(coming and full and late >= 0)
            sending = coming is not None and not full
            try:
                self.take(*self.answers.get(timeout=max(-late, 0) if sending else self.chosen.timeout))
            except queue.Empty:
                if not sending:
                    raise Failed(f"no answer for {self.chosen.timeout:g} s, with {len(self.pending)} frames sent") from None

    def take(self, at: float, result: object, error: Exception | None) -> None:
        """One answer: it is that of the oldest frame."""
        if error is not None and error.status() is not None or not self.pending:
            why = error.message() if error else "an answer that nothing was asked for"
            raise Failed(f"the stream to {self.chosen.url} ended: {why}")
        number, name, began = self.pending.popleft()
        line = f"frame {number:5}  {name}"
        if error is not None:
            self.failed += 1
            print(f"{line}: {error.message()}", file=sys.stderr)
            return
        said = result.get_response()
        if said.id != str(number):
            raise Failed(f"answers are out of order: that of frame {said.id} came for {number}")
        if said.parameters["dropped"].bool_param:
            self.dropped += 1
            self.tell(f"{line}: dropped, too old")
            return
        self.latencies.append((at - began) * 1000)
        boxes, scores, classes = (result.as_numpy(output) for output in ("boxes", "scores", "classes"))
        self.objects += len(boxes)
        self.tell(f"{line}: {self.latencies[-1]:.1f} ms, {described(boxes, scores, classes)}")
        if self.chosen.save:
            (self.chosen.save / f"frame-{number:05}.jpg").write_bytes(result.as_numpy("image")[0])

    def tell(self, line: str) -> None:
        if not self.chosen.quiet:
            print(line)

    def summary(self, seconds: float) -> None:
        back = len(self.latencies)
        print(f"{self.sent} frames in {seconds:.2f} s, {self.sent / seconds:.1f} frames/s sent, {back / seconds:.1f} answered")
        lost = f", {len(self.pending)} without an answer" if self.pending else ""
        print(f"{back} answered with {self.objects} objects, {self.dropped} dropped as too old, {self.failed} failed{lost}")
        if self.held and self.chosen.fps:
            print(f"{self.held} frames came late, because {self.chosen.in_flight} were on their way already (--in-flight)")
        if back:
            p50, p99 = np.percentile(self.latencies, [50, 99])
            print(f"latency p50 {p50:.1f} ms, p99 {p99:.1f} ms, of those that were answered")


def described(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> str:
    called = lambda kind: CLASSES[kind] if 0 <= kind < len(CLASSES) else f"class {kind}"
    each = (f"{called(kind)} {score:.2f} at {','.join(f'{edge:.0f}' for edge in box)}" for box, score, kind in zip(boxes, scores, classes))
    return "; ".join(each) or "nothing"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder of pictures, or an MJPEG file")
    parser.add_argument("--url", default="127.0.0.1:8001", help="host:port of gRPC (default 127.0.0.1:8001)")
    parser.add_argument("--model", help="the graph to ask (default detect; with --save detect-picture)")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second; 0 sends as fast as answers come (default 30)")
    parser.add_argument("--repeat", type=int, default=1, help="how many times over the pictures are sent (default 1)")
    parser.add_argument("--max-age-ms", type=int, default=0, help="the server drops frames older than this; 0 drops none (default)")
    parser.add_argument("--in-flight", type=int, default=16, help="most frames without an answer, 1 to 64 (default 16)")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for an answer (default 30)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write each frame with its boxes there, as JPEG")
    parser.add_argument("--quiet", action="store_true", help="print only the summary")
    chosen = parser.parse_args()
    chosen.model = chosen.model or ("detect-picture" if chosen.save else "detect")
    if not 1 <= chosen.in_flight <= 64:
        parser.error("--in-flight is 1 to 64: the server works on no more of a stream at a time")
    if chosen.fps < 0 or chosen.repeat < 1 or chosen.max_age_ms < 0 or not chosen.timeout > 0:
        parser.error("--fps and --max-age-ms are not below 0, --repeat is 1 at least, --timeout is above 0")
    return chosen


def main() -> int:
    chosen = arguments()
    camera, status, began = None, 1, 0.0
    try:
        # What is wrong with the pictures is told before anybody is asked.
        next(counted(chosen.source, 1))
        if chosen.save:
            chosen.save.mkdir(parents=True, exist_ok=True)
        camera = Camera(chosen)
        camera.open()
        began = time.perf_counter()
        camera.run()
        status = 1 if camera.failed else 0
    except (Failed, OSError) as error:
        print(error, file=sys.stderr)
        if camera and not began:
            print("if no server runs there, start one with: xebec up examples/object-detection", file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
    finally:
        if camera and began:
            camera.summary(time.perf_counter() - began)
        if camera:
            camera.close(at_once=status != 0)
    return status


if __name__ == "__main__":
    sys.exit(main())
