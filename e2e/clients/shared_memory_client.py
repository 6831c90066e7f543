"""The stock tritonclient's system shared memory against a running xebec: REST, gRPC and streams.

Run by e2e/tests/it/protocol_client.rs with the addresses in XEBEC_HTTP and XEBEC_GRPC, and the beginning of the keys that
the server allows in XEBEC_KEYS.
"""

import os
import queue
import unittest

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

KEYS = os.environ["XEBEC_KEYS"]
ROW = 16 * 4


class Memory:
    """Checks that both transports pass."""

    def setUp(self):
        self.client = self.module.InferenceServerClient(os.environ[self.variable])
        self.handles = []

    def tearDown(self):
        self.client.unregister_system_shared_memory()
        self.client.close()
        for handle in self.handles:
            shm.destroy_shared_memory_region(handle)

    def region(self, name: str, size: int, offset: int = 0):
        key = f"/{KEYS}{self.variable}-{name}"
        handle = shm.create_shared_memory_region(name, key, size + offset)
        self.handles.append(handle)
        self.client.register_system_shared_memory(name, key, size, offset=offset)
        return handle

    def inputs(self, rows: int):
        inputs = [self.module.InferInput(f"INPUT{i}", [rows, 16], "INT32") for i in (0, 1)]
        for i, one in enumerate(inputs):
            one.set_shared_memory("in", rows * ROW, offset=i * rows * ROW)
        return inputs

    def outputs(self, rows: int):
        outputs = [self.module.InferRequestedOutput(f"OUTPUT{i}") for i in (0, 1)]
        for i, one in enumerate(outputs):
            one.set_shared_memory("out", rows * ROW, offset=i * rows * ROW)
        return outputs

    def filled(self, rows: int):
        a = np.arange(rows * 16, dtype=np.int32).reshape(rows, 16)
        b = np.full((rows, 16), 3, dtype=np.int32)
        # The regions begin inside their memory.
        inside = self.region("in", 2 * rows * ROW, offset=128)
        out = self.region("out", 2 * rows * ROW)
        shm.set_shared_memory_region(inside, [a, b], offset=128)
        return a, b, out

    def assert_sums(self, out, a, b):
        rows = len(a)
        for i, want in enumerate((a + b, a - b)):
            got = shm.get_contents_as_numpy(out, np.int32, [rows, 16], offset=i * rows * ROW)
            np.testing.assert_array_equal(got, want)

    def test_a_batch_goes_in_and_out_through_memory(self):
        a, b, out = self.filled(8)
        for _ in range(3):
            result = self.client.infer("simple", self.inputs(8), outputs=self.outputs(8))
            self.assert_sums(out, a, b)
            output = result.get_output("OUTPUT1")
            parameters = output["parameters"] if isinstance(output, dict) else output.parameters
            size = parameters["shared_memory_byte_size"]
            self.assertEqual(getattr(size, "int64_param", size), 8 * ROW)

    def test_memory_and_the_request_itself_may_be_mixed(self):
        a, b, out = self.filled(1)
        inputs = self.inputs(1)
        other = np.full((1, 16), 100, dtype=np.int32)
        inputs[0] = self.module.InferInput("INPUT0", [1, 16], "INT32")
        inputs[0].set_data_from_numpy(other)
        outputs = [self.outputs(1)[0], self.module.InferRequestedOutput("OUTPUT1")]
        result = self.client.infer("simple", inputs, outputs=outputs)
        np.testing.assert_array_equal(shm.get_contents_as_numpy(out, np.int32, [1, 16]), other + b)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), other - b)

    def test_strings_go_through_memory(self):
        words = np.array([["", "a", "ü", "long"] * 4], dtype=object)
        packed = serialize_byte_tensor(words)
        size = len(packed.item())
        inside, out = self.region("in", size), self.region("out", 2 * size)
        shm.set_shared_memory_region(inside, [packed])
        inputs = [self.module.InferInput(f"INPUT{i}", [1, 16], "BYTES") for i in (0, 1)]
        for one in inputs:
            one.set_shared_memory("in", size)
        output = self.module.InferRequestedOutput("OUTPUT0")
        output.set_shared_memory("out", 2 * size)
        self.client.infer("simple_string", inputs, outputs=[output])
        got = shm.get_contents_as_numpy(out, np.object_, [1, 16])
        self.assertEqual([word.decode() for word in got.flatten()], list(words.flatten()))

    def test_what_passes_an_end_is_refused_and_says_no_name(self):
        def fails(text, call, *args, **kwargs):
            with self.assertRaises(InferenceServerException) as caught:
                call(*args, **kwargs)
            self.assertIn(text, str(caught.exception))
            self.assertNotIn(KEYS, str(caught.exception))
            self.assertNotIn("/dev", str(caught.exception))

        self.filled(1)
        register = self.client.register_system_shared_memory
        key = f"/{KEYS}{self.variable}-in"
        fails("is registered already", register, "in", key, 16)
        fails("ends behind the end", register, "more", key, 1 << 20)
        fails("no shared memory of this key", register, "more", f"/{KEYS}-nothing", 16)
        fails("is not allowed", register, "more", "/not-allowed", 16)
        fails("passes the end", self.client.infer, "simple", self.inputs(8), outputs=self.outputs(1))
        small = self.outputs(1)
        small[0].set_shared_memory("out", 8)
        fails("should be at least 64 bytes to hold the results", self.client.infer, "simple", self.inputs(1), outputs=small)
        both = self.outputs(1)
        both[1].set_shared_memory("out", ROW, offset=8)
        fails("overlap", self.client.infer, "simple", self.inputs(1), outputs=both)
        self.client.unregister_system_shared_memory("in")
        fails("unable to find the shared memory region", self.client.infer, "simple", self.inputs(1))

    def test_regions_are_listed_and_forgotten(self):
        self.filled(1)
        self.assertEqual(sorted(self.listed()), ["in", "out"])
        self.client.unregister_system_shared_memory("in")
        self.assertEqual(self.listed(), ["out"])
        self.client.unregister_system_shared_memory()
        self.assertEqual(self.listed(), [])

    def test_cuda_memory_is_refused_by_name_and_can_be_forgotten_as_tritons_examples_do(self):
        self.client.unregister_system_shared_memory()
        self.client.unregister_cuda_shared_memory()
        status = self.client.get_cuda_shared_memory_status()
        self.assertFalse(getattr(status, "regions", status))
        with self.assertRaises(InferenceServerException) as caught:
            self.client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64)
        self.assertIn("not offered", str(caught.exception))


class Http(Memory, unittest.TestCase):
    module = httpclient
    variable = "XEBEC_HTTP"

    def listed(self):
        return [region["name"] for region in self.client.get_system_shared_memory_status()]


class Grpc(Memory, unittest.TestCase):
    module = grpcclient
    variable = "XEBEC_GRPC"

    def listed(self):
        return list(self.client.get_system_shared_memory_status().regions)

    def test_a_stream_goes_through_memory_as_well(self):
        a, b, out = self.filled(2)
        done = queue.Queue(maxsize=16)
        self.client.start_stream(lambda result, error: done.put((result, error)))
        for _ in range(4):
            self.client.async_stream_infer("simple", self.inputs(2), outputs=self.outputs(2))
        self.client.async_stream_infer("simple", self.inputs(8), outputs=self.outputs(2))
        for _ in range(4):
            self.assertIsNone(done.get(timeout=60)[1])
        self.assert_sums(out, a, b)
        self.assertIn("passes the end", str(done.get(timeout=60)[1]))
        self.client.stop_stream()


if __name__ == "__main__":
    unittest.main(verbosity=2)
