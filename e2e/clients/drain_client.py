"""The stock tritonclient's load over gRPC while a server drains: every call is answered rightly or UNAVAILABLE.

Run by e2e/tests/it/triton_client.rs with the address in XEBEC_GRPC. Says `loaded` when the server may be told to
stop, and ends with the counts.
"""

import asyncio
import os

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcaio
from tritonclient.utils import InferenceServerException

GRPC = os.environ["XEBEC_GRPC"]
LOADED = 300

X = np.array([[1, 2, 3, 4]], dtype=np.float32)

counts = {"right": 0, "unavailable": 0}


async def lane(client) -> None:
    """Calls until the server takes no more."""
    one = grpcclient.InferInput("x", X.shape, "FP32")
    one.set_data_from_numpy(X)
    while True:
        try:
            result = await client.infer("scaler", [one])
        except InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE":
                raise
            counts["unavailable"] += 1
            return
        np.testing.assert_array_equal(result.as_numpy("y"), X * 2 + 1)
        counts["right"] += 1
        if counts["right"] == LOADED:
            print("loaded", flush=True)


async def main() -> None:
    # A channel each, for channels with the same target and options would share one connection.
    clients = [grpcaio.InferenceServerClient(GRPC, channel_args=[("lane", number)]) for number in range(4)]
    await asyncio.gather(*(lane(client) for client in clients for _ in range(4)))
    for client in clients:
        await client.close()
    print(f"right {counts['right']}, unavailable {counts['unavailable']}")


asyncio.run(main())
