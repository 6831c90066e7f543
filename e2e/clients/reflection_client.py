"""The stock reflection client against a running xebec, which needs no .proto file to call a model.

Run by e2e/tests/it/protocol_client.rs with the address in XEBEC_GRPC.
"""

import os
import unittest

import grpc
import numpy as np
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
]


class Reflection(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(os.environ["XEBEC_GRPC"])
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)

    def tearDown(self):
        self.channel.close()

    def test_services_are_listed(self):
        self.assertEqual(sorted(self.database.get_services()), SERVICES)

    def test_a_model_can_be_called_from_what_reflection_tells_alone(self):
        service = self.pool.FindServiceByName("inference.GRPCInferenceService")
        method = service.FindMethodByName("ModelInfer")
        request = GetMessageClass(method.input_type)()
        request.model_name = "scaler"
        one = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        one.contents.fp32_contents.extend([1, 2, 3, 4])
        call = self.channel.unary_unary(
            f"/{service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = call(request, timeout=30)
        np.testing.assert_array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), [3, 5, 7, 9])

    def test_types_of_other_files_are_found(self):
        config = self.pool.FindMessageTypeByName("inference.ModelConfig")
        self.assertIn("max_batch_size", config.fields_by_name)
        self.assertEqual(self.pool.FindMethodByName("grpc.health.v1.Health.Check").input_type.name, "HealthCheckRequest")

    def test_what_is_unknown_is_told_in_band(self):
        with self.assertRaises(KeyError):
            self.pool.FindServiceByName("inference.Nothing")
        ask = reflection_pb2.ServerReflectionRequest
        requests = [
            ask(file_by_filename="nothing.proto"),
            ask(file_containing_symbol="nothing"),
            ask(all_extension_numbers_of_type="nothing"),
            ask(list_services=""),
        ]
        stub = reflection_pb2_grpc.ServerReflectionStub(self.channel)
        answers = list(stub.ServerReflectionInfo(iter(requests), timeout=30))
        self.assertEqual([answer.error_response.error_code for answer in answers], [5, 5, 5, 0])
        self.assertEqual([service.name for service in answers[3].list_services_response.service], SERVICES)
        self.assertEqual([answer.original_request for answer in answers], requests)


if __name__ == "__main__":
    unittest.main(verbosity=2)
