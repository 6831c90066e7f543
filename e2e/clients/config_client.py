"""What config.pbtxt changes, as the stock tritonclient sees it: reshapes, optional inputs, labels, priorities.

Run by e2e/tests/it/configured/stock.rs with the addresses in XEBEC_HTTP and XEBEC_GRPC.
"""

import os
import unittest

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

HTTP = os.environ["XEBEC_HTTP"]
GRPC = os.environ["XEBEC_GRPC"]


class Checks(unittest.TestCase):
    def setUp(self):
        self.clients = [
            (httpclient, httpclient.InferenceServerClient(HTTP)),
            (grpcclient, grpcclient.InferenceServerClient(GRPC)),
        ]

    def tearDown(self):
        for _, client in self.clients:
            client.close()

    def answers(self, model: str, arrays: dict, classes: int = 0, **arguments):
        """The output y over both protocols."""
        for kind, client in self.clients:
            inputs = []
            for name, array in arrays.items():
                given = kind.InferInput(name, array.shape, "FP32")
                given.set_data_from_numpy(array)
                inputs.append(given)
            outputs = [kind.InferRequestedOutput("y", class_count=classes)]
            yield client.infer(model, inputs, outputs=outputs, **arguments).as_numpy("y")

    def test_a_reshape_is_what_metadata_and_answers_show(self):
        metadata = self.clients[0][1].get_model_metadata("reshaped")
        self.assertEqual([metadata["inputs"][0]["shape"], metadata["outputs"][0]["shape"]], [[-1, 2, 2], [-1, 1]])
        for y in self.answers("reshaped", {"x": np.ones((3, 2, 2), np.float32)}):
            np.testing.assert_array_equal(y, np.full((3, 1), 4, np.float32))

    def test_an_optional_input_may_be_left_out(self):
        x, bias = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
        for y in self.answers("optional", {"x": x}):
            np.testing.assert_array_equal(y, [[10, 20], [10, 20]])
        for y in self.answers("optional", {"bias": bias, "x": x}):
            np.testing.assert_array_equal(y, bias)

    def test_an_input_that_is_not_optional_may_not(self):
        with self.assertRaisesRegex(InferenceServerException, "expected 2 inputs but got 1"):
            next(self.answers("optional", {"bias": np.ones((2, 2), np.float32)}))

    def test_classes_have_labels(self):
        for y in self.answers("labelled", {"x": np.array([[1, 4, 3, 0]], np.float32)}, classes=2):
            self.assertEqual(y.tolist(), [[b"9.000000:1:dog", b"7.000000:2:bird"]])

    def test_a_priority_is_a_level_of_the_model_or_its_default(self):
        x = np.zeros((1, 4), np.float32)
        for priority in [0, 1, 2, 3]:
            for y in self.answers("urgent", {"x": x}, priority=priority):
                np.testing.assert_array_equal(y, x + 1)
        for y in self.answers("labelled", {"x": x}, priority=3):
            self.assertEqual(y.shape, (1, 4))

    def test_the_configuration_is_told_as_it_is_written(self):
        config = self.clients[0][1].get_model_config("optional")
        self.assertEqual([one.get("optional") for one in config["input"]], [False, True])
        self.assertEqual(config["parameters"], {"team": {"string_value": "fraud"}})
        reshaped = self.clients[1][1].get_model_config("reshaped", as_json=True)["config"]
        self.assertEqual(reshaped["input"][0]["reshape"], {"shape": ["4"]})


if __name__ == "__main__":
    unittest.main()
