"""The stock tritonclient's streams against a running xebec: callbacks and aio, errors in band, cancelling.

Run by e2e/tests/it/protocol_client.rs with the address in XEBEC_GRPC.
"""

import os
import queue
import unittest

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcaio
from tritonclient.utils import InferenceServerException

GRPC = os.environ["XEBEC_GRPC"]
MANY = 500


def inputs(number: int):
    x = np.full((1, 4), number, dtype=np.float32)
    one = grpcclient.InferInput("x", x.shape, "FP32")
    one.set_data_from_numpy(x)
    return [one]


class Stream(unittest.TestCase):
    def setUp(self):
        self.client = grpcclient.InferenceServerClient(GRPC)
        self.done = queue.Queue(maxsize=4 * MANY)
        self.client.start_stream(lambda result, error: self.done.put((result, error)))

    def tearDown(self):
        self.client.close()

    def next(self):
        return self.done.get(timeout=60)

    def assert_answer(self, number: int):
        result, error = self.next()
        self.assertIsNone(error)
        self.assertEqual(result.get_response().id, str(number))
        np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), 2 * number + 1, dtype=np.float32))

    def test_answers_come_in_the_order_of_the_requests(self):
        for number in range(MANY):
            self.client.async_stream_infer("scaler", inputs(number), request_id=str(number))
        for number in range(MANY):
            self.assert_answer(number)
        self.client.stop_stream()

    def test_errors_come_in_band_and_the_stream_goes_on(self):
        self.client.async_stream_infer("scaler", inputs(1), request_id="1")
        self.client.async_stream_infer("nobody", inputs(2), request_id="2")
        self.client.async_stream_infer("scaler", inputs(3), request_id="3", model_version="9")
        self.client.async_stream_infer("scaler", inputs(4), request_id="4")
        self.assert_answer(1)
        for text in ("Request for unknown model: 'nobody' is not found", "version 9 is not found"):
            result, error = self.next()
            self.assertIsNone(result)
            self.assertIn(text, str(error))
        self.assert_answer(4)

    def test_the_last_answer_says_so_where_it_is_asked_for(self):
        for asked in (True, False):
            self.client.async_stream_infer("scaler", inputs(1), enable_empty_final_response=asked)
            result, error = self.next()
            self.assertIsNone(error)
            said = result.get_response().parameters
            self.assertEqual("triton_final_response" in said, asked)
            if asked:
                self.assertTrue(said["triton_final_response"].bool_param)

    def test_a_stream_that_is_cancelled_leaves_the_client_usable(self):
        slow = grpcclient.InferInput("x", [1, 4], "FP32")
        slow.set_data_from_numpy(np.ones((1, 4), dtype=np.float32))
        for _ in range(20):
            self.client.async_stream_infer("slow", [slow])
        self.client.stop_stream(cancel_requests=True)
        self.done = queue.Queue(maxsize=1)
        self.client.start_stream(lambda result, error: self.done.put((result, error)))
        self.client.async_stream_infer("scaler", inputs(7), request_id="7")
        self.assert_answer(7)


class Aio(unittest.IsolatedAsyncioTestCase):
    async def test_an_iterator_of_requests_gives_one_of_answers(self):
        async def requests():
            for number in range(MANY):
                model = "nobody" if number == 10 else "scaler"
                yield {"model_name": model, "inputs": inputs(number), "request_id": str(number)}

        number = 0
        async with grpcaio.InferenceServerClient(GRPC) as client:
            async for result, error in client.stream_infer(requests()):
                if number == 10:
                    self.assertIsInstance(error, InferenceServerException)
                else:
                    self.assertIsNone(error)
                    self.assertEqual(result.get_response().id, str(number))
                    want = np.full((1, 4), 2 * number + 1, dtype=np.float32)
                    np.testing.assert_array_equal(result.as_numpy("y"), want)
                number += 1
        self.assertEqual(number, MANY)


if __name__ == "__main__":
    unittest.main(verbosity=2)
