"""The stock tritonclient reads and changes the trace settings of a running xebec: HTTP and gRPC.

Run by e2e/tests/it/trace.rs against a server with explicit model control that traces one call of a thousand.
"""

import os
import unittest

import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

HTTP = os.environ["XEBEC_HTTP"]
GRPC = os.environ["XEBEC_GRPC"]

START = {
    "trace_file": "",
    "trace_level": ["TIMESTAMPS"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "opentelemetry",
}


class Settings:
    """Checks that both clients pass; what each gives back is made alike."""

    def get(self, model=None) -> dict:
        return self.alike(self.client.get_trace_settings(model_name=model))

    def update(self, settings: dict, model=None) -> dict:
        return self.alike(self.client.update_trace_settings(model_name=model, settings=settings))

    def refuses(self, settings: dict, text: str, model=None):
        with self.assertRaises(InferenceServerException) as caught:
            self.client.update_trace_settings(model_name=model, settings=settings)
        self.assertIn(text, caught.exception.message())

    def test_settings_are_read_changed_and_cleared(self):
        self.assertEqual(self.get(), START)
        changed = self.update({"trace_level": ["OFF"], "trace_rate": "7", "trace_count": "5", "log_frequency": "3"})
        want = {**START, "trace_level": ["OFF"], "trace_rate": "7", "trace_count": "5", "log_frequency": "3"}
        self.assertEqual(changed, want)
        self.assertEqual(self.get(), want)
        self.assertEqual(self.update(dict.fromkeys(START)), START)

    def test_a_model_has_its_own_until_they_are_cleared(self):
        own = self.update({"trace_rate": "2", "trace_mode": "opentelemetry"}, "scaler")
        self.assertEqual(own, {**START, "trace_rate": "2"})
        self.update({"trace_rate": "9"})
        self.assertEqual((self.get("scaler")["trace_rate"], self.get("simple")["trace_rate"]), ("2", "9"))
        self.assertEqual(self.update({"trace_rate": None}, "scaler"), {**START, "trace_rate": "9"})
        self.assertEqual(self.update({"trace_rate": None}), START)

    def test_what_cannot_be_set_is_refused_by_name_and_changes_nothing(self):
        self.refuses({"trace_rate": "5", "trace_file": "/tmp/trace.json"}, "trace_file")
        self.refuses({"trace_level": ["TIMESTAMPS", "TENSORS"]}, "TENSORS")
        self.refuses({"trace_mode": "triton"}, "trace_mode")
        self.refuses({"trace_rate": "0"}, "trace_rate")
        self.refuses({"trace_count": "-2"}, "trace_count")
        self.refuses({"colour": "red"}, "colour")
        self.refuses({"trace_rate": "5"}, "unknown model", "nobody")
        self.assertEqual(self.get(), START)


class Http(Settings, unittest.TestCase):
    def setUp(self):
        self.client = httpclient.InferenceServerClient(HTTP)
        self.addCleanup(self.client.close)

    def alike(self, answer) -> dict:
        return answer


class Grpc(Settings, unittest.TestCase):
    def setUp(self):
        self.client = grpcclient.InferenceServerClient(GRPC)
        self.addCleanup(self.client.close)

    def alike(self, answer) -> dict:
        values = {name: list(setting.value) for name, setting in answer.settings.items()}
        return {name: value if name == "trace_level" else value[0] for name, value in values.items()}


if __name__ == "__main__":
    unittest.main()
