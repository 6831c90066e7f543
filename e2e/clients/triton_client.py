"""The stock tritonclient against a running xebec: HTTP and gRPC, sync, async and aio, JSON and binary, and gRPC health.

Run by e2e/tests/it/triton_client.rs with the addresses in XEBEC_HTTP and XEBEC_GRPC; by hand:
    XEBEC_HTTP=127.0.0.1:8000 XEBEC_GRPC=127.0.0.1:8001 python e2e/clients/triton_client.py
"""

import asyncio
import os
import queue
import unittest

import grpc
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcaio
import tritonclient.http as httpclient
import tritonclient.http.aio as httpaio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

HTTP = os.environ["XEBEC_HTTP"]
GRPC = os.environ["XEBEC_GRPC"]

A = np.arange(16, dtype=np.int32).reshape(1, 16)
B = np.ones((1, 16), dtype=np.int32)

UNKNOWN = "Request for unknown model: 'nobody' is not found"


def http_inputs(binary: bool, a=A, b=B):
    inputs = [httpclient.InferInput("INPUT0", a.shape, "INT32"), httpclient.InferInput("INPUT1", b.shape, "INT32")]
    inputs[0].set_data_from_numpy(a, binary_data=binary)
    inputs[1].set_data_from_numpy(b, binary_data=binary)
    return inputs


def grpc_inputs(a=A, b=B):
    inputs = [grpcclient.InferInput("INPUT0", a.shape, "INT32"), grpcclient.InferInput("INPUT1", b.shape, "INT32")]
    inputs[0].set_data_from_numpy(a)
    inputs[1].set_data_from_numpy(b)
    return inputs


def statistics(answer) -> dict:
    """Counts of the only model in an answer: over gRPC, numbers of 64 bits are text and zeros are left out."""
    (model,) = answer["model_stats"]
    runs = {int(batch["batch_size"]): int(batch["compute_infer"]["count"]) for batch in model.get("batch_stats", [])}
    count = lambda name: int(model["inference_stats"].get(name, {}).get("count", 0))
    return {
        "rows": int(model.get("inference_count", 0)),
        "runs": int(model.get("execution_count", 0)),
        "of three rows": runs.get(3, 0),
        "listed": sum(runs.values()),
        "success": count("success"),
        "fail": count("fail"),
        "queue": count("queue"),
    }


class Checks(unittest.TestCase):
    def assert_classes(self, result):
        classes = result.as_numpy("OUTPUT0")
        self.assertEqual(classes.shape, (1, 3))
        words = [one.decode() if isinstance(one, bytes) else one for one in classes[0]]
        self.assertEqual(words, ["16:15", "15:14", "14:13"])

    def assert_counted(self, before: dict, after: dict):
        """One request of three rows was answered and one refused."""
        more = {name: after[name] - before[name] for name in after}
        one = dict.fromkeys(("runs", "of three rows", "listed", "success", "fail", "queue"), 1)
        self.assertEqual(more, {"rows": 3, **one})

    def assert_sums(self, result, a=A, b=B):
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), a + b)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), a - b)


class Http(Checks):
    def setUp(self):
        self.client = httpclient.InferenceServerClient(HTTP, concurrency=4)

    def test_classification(self):
        for binary in (True, False):
            wanted = [httpclient.InferRequestedOutput("OUTPUT0", binary_data=binary, class_count=3)]
            result = self.client.infer("simple", http_inputs(binary), outputs=wanted)
            self.assert_classes(result)

    def tearDown(self):
        self.client.close()

    def test_health_and_metadata(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("simple"))
        self.assertTrue(self.client.is_model_ready("simple", "1"))
        self.assertFalse(self.client.is_model_ready("nobody"))
        server = self.client.get_server_metadata()
        self.assertEqual(server["name"], "triton")
        self.assertIn("binary_tensor_data", server["extensions"])
        model = self.client.get_model_metadata("simple")
        self.assertEqual((model["name"], model["versions"]), ("simple", ["1"]))
        self.assertEqual(model["inputs"][0], {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]})
        config = self.client.get_model_config("simple")
        self.assertEqual((config["max_batch_size"], config["input"][0]["dims"]), (8, [16]))
        self.assertEqual(config["input"][0]["data_type"], "TYPE_INT32")

    def test_every_mix_of_json_and_binary(self):
        for binary_in in (False, True):
            for outputs in (None, False, True):
                wanted = outputs is not None and [
                    httpclient.InferRequestedOutput("OUTPUT0", binary_data=outputs),
                    httpclient.InferRequestedOutput("OUTPUT1", binary_data=not outputs),
                ]
                result = self.client.infer("simple", http_inputs(binary_in), outputs=wanted or None, request_id="seven")
                self.assert_sums(result)
                self.assertEqual(result.get_response()["id"], "seven")
                self.assertEqual(result.get_response()["model_version"], "1")

    def test_only_the_wanted_output_comes(self):
        wanted = [httpclient.InferRequestedOutput("OUTPUT1", binary_data=False)]
        result = self.client.infer("simple", http_inputs(True), outputs=wanted)
        self.assertEqual([output["name"] for output in result.get_response()["outputs"]], ["OUTPUT1"])

    def test_compression_both_ways(self):
        for algorithm in ("gzip", "deflate"):
            result = self.client.infer(
                "simple",
                http_inputs(True),
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            self.assert_sums(result)

    def test_async(self):
        for binary in (True, False):
            wanted = [httpclient.InferRequestedOutput(f"OUTPUT{i}", binary_data=binary) for i in (0, 1)]
            waiting = [self.client.async_infer("simple", http_inputs(binary), outputs=wanted) for _ in range(20)]
            for one in waiting:
                self.assert_sums(one.get_result())
        with self.assertRaises(InferenceServerException) as caught:
            self.client.async_infer("nobody", http_inputs(True)).get_result()
        self.assertIn(UNKNOWN, str(caught.exception))

    def test_what_is_unknown_says_so(self):
        for unknown in (self.client.get_model_metadata, self.client.get_model_config):
            with self.assertRaises(InferenceServerException) as caught:
                unknown("nobody")
            self.assertIn(UNKNOWN, str(caught.exception))

    def test_repository_index(self):
        self.assertIn(
            {"name": "simple", "version": "1", "state": "READY", "reason": ""}, self.client.get_model_repository_index()
        )

    def test_statistics(self):
        before = statistics(self.client.get_inference_statistics("simple"))
        rows = np.ones((3, 16), dtype=np.int32)
        self.client.infer("simple", http_inputs(True, rows, rows))
        with self.assertRaises(InferenceServerException):
            self.client.infer("simple", http_inputs(True)[:1])
        self.assert_counted(before, statistics(self.client.get_inference_statistics("simple", "1")))
        everybody = self.client.get_inference_statistics()["model_stats"]
        self.assertIn("simple", [model["name"] for model in everybody])

    def test_a_batch_of_rows(self):
        a = np.arange(8 * 16, dtype=np.int32).reshape(8, 16)
        self.assert_sums(self.client.infer("simple", http_inputs(True, a, a), model_version="1"), a, a)

    def test_strings(self):
        words = np.array([["", "a", "ü", "\U0001f600"] * 4], dtype=object)
        for binary in (True, False):
            inputs = [httpclient.InferInput(f"INPUT{i}", words.shape, "BYTES") for i in (0, 1)]
            for one in inputs:
                one.set_data_from_numpy(words, binary_data=binary)
            result = self.client.infer("simple_string", inputs)
            got = result.as_numpy("OUTPUT0").astype(object)
            self.assertEqual([w.decode() for w in got.flatten()], list(words.flatten()))

    def test_errors(self):
        def fails(text, *args, **kwargs):
            with self.assertRaises(InferenceServerException) as caught:
                self.client.infer(*args, **kwargs)
            self.assertIn(text, str(caught.exception))

        fails(UNKNOWN, "nobody", http_inputs(True))
        fails("Request for unknown model: 'simple' version 9 is not found", "simple", http_inputs(True), "9")
        fails("expected 2 inputs but got 1 inputs for model 'simple'", "simple", http_inputs(True)[:1])
        nine = np.zeros((9, 16), dtype=np.int32)
        fails("inference request batch-size must be <= 8 for 'simple'", "simple", http_inputs(True, nine, nine))
        long = np.zeros((1, 17), dtype=np.int32)
        fails("unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,17]", "simple", http_inputs(True, long, B))
        wrong = http_inputs(True)
        wrong[0] = httpclient.InferInput("INPUT7", A.shape, "INT32")
        wrong[0].set_data_from_numpy(A)
        fails("unexpected inference input 'INPUT7' for model 'simple'", "simple", wrong)
        fails("[request id: 42]", "simple", http_inputs(True, nine, nine), request_id="42")


class HttpAio(unittest.IsolatedAsyncioTestCase):
    async def test_health_and_metadata(self):
        async with httpaio.InferenceServerClient(HTTP) as client:
            self.assertTrue(await client.is_server_live())
            self.assertTrue(await client.is_server_ready())
            self.assertTrue(await client.is_model_ready("simple"))
            self.assertFalse(await client.is_model_ready("nobody"))
            self.assertEqual((await client.get_server_metadata())["name"], "triton")
            self.assertEqual((await client.get_model_metadata("simple"))["inputs"][0]["shape"], [-1, 16])
            self.assertEqual((await client.get_model_config("simple"))["max_batch_size"], 8)

    async def test_infer_and_errors(self):
        async with httpaio.InferenceServerClient(HTTP) as client:
            for binary in (True, False):
                wanted = [httpclient.InferRequestedOutput(f"OUTPUT{i}", binary_data=binary) for i in (0, 1)]
                calls = (client.infer("simple", http_inputs(binary), outputs=wanted) for _ in range(20))
                for result in await asyncio.gather(*calls):
                    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)
                    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), A - B)
            with self.assertRaises(InferenceServerException) as caught:
                await client.infer("nobody", http_inputs(True))
            self.assertIn(UNKNOWN, str(caught.exception))


class Grpc(Checks):
    def setUp(self):
        self.client = grpcclient.InferenceServerClient(GRPC)

    def test_classification(self):
        wanted = [grpcclient.InferRequestedOutput("OUTPUT0", class_count=3)]
        self.assert_classes(self.client.infer("simple", grpc_inputs(), outputs=wanted))

    def tearDown(self):
        self.client.close()

    def test_health_and_metadata(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("simple"))
        self.assertTrue(self.client.is_model_ready("simple", "1"))
        self.assertFalse(self.client.is_model_ready("nobody"))
        self.assertEqual(self.client.get_server_metadata().name, "triton")
        model = self.client.get_model_metadata("simple", as_json=True)
        self.assertEqual((model["name"], model["versions"], model["inputs"][0]["shape"]), ("simple", ["1"], ["-1", "16"]))
        for unknown in (self.client.get_model_metadata, self.client.get_model_config):
            with self.assertRaises(InferenceServerException) as caught:
                unknown("nobody")
            self.assertEqual((caught.exception.message(), caught.exception.status()), (UNKNOWN, "StatusCode.NOT_FOUND"))
        self.assertEqual(self.client.get_model_config("simple").config.max_batch_size, 8)

    def test_infer_with_id_and_wanted_output(self):
        self.assert_sums(self.client.infer("simple", grpc_inputs()))
        result = self.client.infer(
            "simple", grpc_inputs(), outputs=[grpcclient.InferRequestedOutput("OUTPUT1")], request_id="seven"
        )
        self.assertEqual(result.get_response().id, "seven")
        self.assertEqual([output.name for output in result.get_response().outputs], ["OUTPUT1"])

    def test_compression_and_a_deadline(self):
        for algorithm in ("gzip", "deflate"):
            self.assert_sums(self.client.infer("simple", grpc_inputs(), compression_algorithm=algorithm, client_timeout=30))

    def test_async(self):
        done = queue.Queue(maxsize=20)
        for _ in range(20):
            self.client.async_infer("simple", grpc_inputs(), lambda result, error: done.put((result, error)))
        for _ in range(20):
            result, error = done.get(timeout=30)
            self.assertIsNone(error)
            self.assert_sums(result)

    def test_a_cancelled_call_ends_as_cancelled(self):
        done = queue.Queue(maxsize=1)
        slow = grpcclient.InferInput("x", [1, 4], "FP32")
        slow.set_data_from_numpy(np.ones((1, 4), dtype=np.float32))
        call = self.client.async_infer("slow", [slow], lambda result, error: done.put(error))
        call.cancel()
        self.assertIn("CANCELLED", str(done.get(timeout=30)))

    def test_half_precision_travels_raw(self):
        half = np.array([[1.5, -2.0]], dtype=np.float16)
        one = grpcclient.InferInput("x", half.shape, "FP16")
        one.set_data_from_numpy(half)
        np.testing.assert_array_equal(self.client.infer("identity_fp16", [one]).as_numpy("y"), half)

    def test_errors(self):
        def fails(status, text, *args, **kwargs):
            with self.assertRaises(InferenceServerException) as caught:
                self.client.infer(*args, **kwargs)
            self.assertIn(text, caught.exception.message())
            self.assertEqual(caught.exception.status(), f"StatusCode.{status}")

        fails("NOT_FOUND", UNKNOWN, "nobody", grpc_inputs())
        fails("NOT_FOUND", "Request for unknown model: 'simple' version 9 is not found", "simple", grpc_inputs(), "9")
        fails("INVALID_ARGUMENT", "expected 2 inputs but got 1 inputs for model 'simple'", "simple", grpc_inputs()[:1])
        nine = np.zeros((9, 16), dtype=np.int32)
        fails("INVALID_ARGUMENT", "batch-size must be <= 8 for 'simple'", "simple", grpc_inputs(nine, nine))
        with self.assertRaises(InferenceServerException) as caught:
            self.client.update_trace_settings(settings={"trace_rate": "1"})
        self.assertEqual(caught.exception.status(), "StatusCode.PERMISSION_DENIED")
        with self.assertRaises(InferenceServerException) as caught:
            self.client.get_inference_statistics("nobody")
        self.assertEqual(caught.exception.status(), "StatusCode.NOT_FOUND")

    def test_repository_index(self):
        models = self.client.get_model_repository_index(as_json=True)["models"]
        self.assertIn({"name": "simple", "version": "1", "state": "READY"}, models)

    def test_statistics(self):
        def counted():
            answer = self.client.get_inference_statistics("simple", "1", as_json=True)
            return statistics(answer)

        before = counted()
        rows = np.ones((3, 16), dtype=np.int32)
        self.client.infer("simple", grpc_inputs(rows, rows))
        with self.assertRaises(InferenceServerException):
            self.client.infer("simple", grpc_inputs()[:1])
        self.assert_counted(before, counted())
        everybody = self.client.get_inference_statistics(as_json=True)["model_stats"]
        self.assertIn("simple", [model["name"] for model in everybody])


class GrpcAio(unittest.IsolatedAsyncioTestCase):
    async def test_health_and_metadata(self):
        async with grpcaio.InferenceServerClient(GRPC) as client:
            self.assertTrue(await client.is_server_live())
            self.assertTrue(await client.is_server_ready())
            self.assertTrue(await client.is_model_ready("simple"))
            self.assertFalse(await client.is_model_ready("nobody"))
            self.assertEqual((await client.get_server_metadata()).name, "triton")
            self.assertEqual(list((await client.get_model_metadata("simple")).inputs[0].shape), [-1, 16])
            self.assertEqual((await client.get_model_config("simple")).config.max_batch_size, 8)

    async def test_infer_and_errors(self):
        async with grpcaio.InferenceServerClient(GRPC) as client:
            results = await asyncio.gather(*(client.infer("simple", grpc_inputs()) for _ in range(20)))
            for result in results:
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), A + B)
                np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), A - B)
            with self.assertRaises(InferenceServerException) as caught:
                await client.infer("nobody", grpc_inputs())
            self.assertEqual((caught.exception.message(), caught.exception.status()), (UNKNOWN, "StatusCode.NOT_FOUND"))


class Health(unittest.TestCase):
    """The standard service, as a probe of Kubernetes or a balancer calls it."""

    def setUp(self):
        self.channel = grpc.insecure_channel(GRPC)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def tearDown(self):
        self.channel.close()

    def test_check(self):
        for service in ("", "inference.GRPCInferenceService"):
            answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        with self.assertRaises(grpc.RpcError) as caught:
            self.health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=30)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertIn("nobody", caught.exception.details())

    def test_watch(self):
        for service, status in (("", "SERVING"), ("nobody", "SERVICE_UNKNOWN")):
            call = self.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=30)
            self.assertEqual(next(call).status, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
            call.cancel()


if __name__ == "__main__":
    unittest.main(verbosity=2)
