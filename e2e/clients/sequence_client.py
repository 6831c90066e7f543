"""The stock tritonclient follows sequences of a stateful model of a running xebec: HTTP, gRPC and streams.

Run by e2e/tests/it/sequences.rs. The model `accumulate` adds up what a sequence sends.
"""

import os
import queue
import unittest

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

HTTP = os.environ["XEBEC_HTTP"]
GRPC = os.environ["XEBEC_GRPC"]

VALUES = [11, 7, 5, 3, 2, 0, 1]


def tensor(module, x: float):
    made = module.InferInput("x", [1, 1], "FP32")
    made.set_data_from_numpy(np.array([[x]], np.float32))
    return made


def flags(place: int) -> dict:
    return {"sequence_start": place == 0, "sequence_end": place + 1 == len(VALUES)}


def sums(module, client, ids: list) -> list[list[float]]:
    """Two sequences, a step of each in turn."""
    seen = [[] for _ in ids]
    for place, x in enumerate(VALUES):
        for sequence, sign in zip(range(len(ids)), (1, -1)):
            answer = client.infer("accumulate", [tensor(module, sign * x)], sequence_id=ids[sequence], **flags(place))
            seen[sequence].append(float(answer.as_numpy("sum")[0, 0]))
    return seen


DUE = np.cumsum(VALUES).astype(float).tolist()


class Sequences(unittest.TestCase):
    def follow(self, module, address: str, ids: list):
        with module.InferenceServerClient(address) as client:
            up, down = sums(module, client, ids)
        self.assertEqual(up, DUE)
        self.assertEqual(down, [-x for x in DUE])

    def test_1_http(self):
        self.follow(httpclient, HTTP, [1001, 1002])

    def test_2_grpc(self):
        self.follow(grpcclient, GRPC, [1003, 1004])

    def test_3_a_stream(self):
        answers = queue.Queue()
        with grpcclient.InferenceServerClient(GRPC) as client:
            client.start_stream(callback=lambda result, error: answers.put((result, error)))
            for place, x in enumerate(VALUES):
                for sequence, sign in ((1005, 1), (1006, -1)):
                    client.async_stream_infer(
                        "accumulate", [tensor(grpcclient, sign * x)], sequence_id=sequence, request_id=f"{sequence}-{place}", **flags(place)
                    )
            seen = {1005: [], 1006: []}
            for _ in range(2 * len(VALUES)):
                result, error = answers.get(timeout=60)
                self.assertIsNone(error)
                sequence = int(result.get_response().id.split("-")[0])
                seen[sequence].append(float(result.as_numpy("sum")[0, 0]))
            client.stop_stream()
        self.assertEqual(seen, {1005: DUE, 1006: [-x for x in DUE]})

    def test_3b_a_stream_that_waits_for_nothing(self):
        answers, many = queue.Queue(), 200
        with grpcclient.InferenceServerClient(GRPC) as client:
            client.start_stream(callback=lambda result, error: answers.put((result, error)))
            for place in range(many):
                start, end = place == 0, place + 1 == many
                one = [tensor(grpcclient, 1)]
                client.async_stream_infer("accumulate", one, sequence_id=1007, sequence_start=start, sequence_end=end)
            for place in range(many):
                result, error = answers.get(timeout=60)
                self.assertIsNone(error)
                self.assertEqual(result.as_numpy("sum")[0, 0], place + 1)
            client.stop_stream()

    def test_4_a_text_is_no_id_of_this_model(self):
        for module, address in ((httpclient, HTTP), (grpcclient, GRPC)):
            with module.InferenceServerClient(address) as client:
                with self.assertRaisesRegex(InferenceServerException, "sequence_id a-b is not an id of this model"):
                    client.infer("accumulate", [tensor(module, 1)], sequence_id="a-b", sequence_start=True)

    def test_5_a_sequence_needs_a_start(self):
        for module, address in ((httpclient, HTTP), (grpcclient, GRPC)):
            with module.InferenceServerClient(address) as client:
                with self.assertRaisesRegex(InferenceServerException, "must specify the START flag"):
                    client.infer("accumulate", [tensor(module, 1)], sequence_id=4711)

    def test_6_a_request_needs_a_sequence(self):
        for module, address in ((httpclient, HTTP), (grpcclient, GRPC)):
            with module.InferenceServerClient(address) as client:
                with self.assertRaisesRegex(InferenceServerException, "non-zero or non-empty correlation ID"):
                    client.infer("accumulate", [tensor(module, 1)])


if __name__ == "__main__":
    unittest.main()
