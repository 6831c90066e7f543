"""The stock tritonclient loads and unloads models of a running xebec: HTTP and gRPC, sync and aio.

Run by e2e/tests/it/lifecycle.rs over a repository with the models m (version 1) and n (version 2), none of them loaded;
both add their version to twice their input.
"""

import asyncio
import json
import os
import pathlib
import unittest

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcaio
import tritonclient.http as httpclient
import tritonclient.http.aio as httpaio
from tritonclient.utils import InferenceServerException

HTTP = os.environ["XEBEC_HTTP"]
GRPC = os.environ["XEBEC_GRPC"]

SIDES = {"http": (httpclient, HTTP), "grpc": (grpcclient, GRPC)}


def answer(module, client, model: str) -> float:
    tensor = module.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    return float(client.infer(model, [tensor]).as_numpy("y")[0, 0])


def states(module, client) -> dict:
    index = client.get_model_repository_index()
    if module is httpclient:
        return {row["name"]: row["state"] for row in index}
    return {row.name: row.state for row in index.models}


class Control(unittest.TestCase):
    def each(self):
        for name, (module, address) in SIDES.items():
            with self.subTest(name), module.InferenceServerClient(address) as client:
                yield module, client

    def test_1_a_model_is_loaded_and_unloaded(self):
        for module, client in self.each():
            self.assertFalse(client.is_model_ready("m"))
            client.load_model("m")
            self.assertTrue(client.is_model_ready("m"))
            self.assertEqual(answer(module, client, "m"), 1.0)
            self.assertEqual(states(module, client), {"m": "READY", "n": "UNAVAILABLE"})
            client.unload_model("m")
            self.assertFalse(client.is_model_ready("m"))

    def test_2_dependents_may_be_named(self):
        for _, client in self.each():
            client.load_model("n")
            client.unload_model("n", unload_dependents=True)
            self.assertFalse(client.is_model_ready("n"))

    def test_3_an_unknown_model_is_refused_in_tritons_words(self):
        for _, client in self.each():
            with self.assertRaises(InferenceServerException) as raised:
                client.load_model("nobody")
            self.assertIn("failed to load 'nobody', failed to poll from model repository", str(raised.exception))
            with self.assertRaises(InferenceServerException):
                client.unload_model("nobody")

    def test_4_a_configuration_comes_with_the_order(self):
        for module, client in self.each():
            client.load_model("m", config=json.dumps({"max_batch_size": "16"}))
            config = client.get_model_config("m", **({} if module is httpclient else {"as_json": True}))
            config = config.get("config", config)
            self.assertEqual(config["max_batch_size"], 16)
            client.load_model("m")
            self.assertEqual(answer(module, client, "m"), 1.0)

    def test_5_a_wrong_configuration_changes_nothing(self):
        for module, client in self.each():
            client.load_model("m")
            with self.assertRaisesRegex(InferenceServerException, "max_batchsize"):
                client.load_model("m", config=json.dumps({"max_batchsize": 1}))
            self.assertEqual(answer(module, client, "m"), 1.0)

    def test_6_files_come_with_the_order(self):
        # The model n, which is also the version of an order's own.
        model = (pathlib.Path(os.environ["XEBEC_REPOSITORY"]) / "n/2/model.onnx").read_bytes()
        for module, client in self.each():
            client.load_model("m", config=json.dumps({"max_batch_size": 4}), files={"file:7/model.onnx": model})
            metadata = client.get_model_metadata("m")
            versions = metadata["versions"] if module is httpclient else list(metadata.versions)
            self.assertEqual(versions, ["7"])
            self.assertEqual(answer(module, client, "m"), 2.0)
            with self.assertRaisesRegex(InferenceServerException, "file:<version>/<name>"):
                client.load_model("m", config="{}", files={"file:../x": model})
            client.load_model("m")
            self.assertEqual(answer(module, client, "m"), 1.0)

    def test_7_aio_over_grpc(self):
        async def run():
            async with grpcaio.InferenceServerClient(GRPC) as client:
                await client.load_model("n")
                self.assertTrue(await client.is_model_ready("n"))
                await client.unload_model("n")
                self.assertFalse(await client.is_model_ready("n"))

        asyncio.run(run())

    def test_8_aio_over_http(self):
        async def run():
            async with httpaio.InferenceServerClient(HTTP) as client:
                await client.load_model("n")
                self.assertTrue(await client.is_model_ready("n"))
                await client.unload_model("n")
                self.assertFalse(await client.is_model_ready("n"))

        asyncio.run(run())


if __name__ == "__main__":
    unittest.main()
