#!/usr/bin/env python3
"""The same recommendations as a Python service, as one writes it with FastAPI: to compare a server with.

It answers as the graph `recommend` does, at the same address and in the same form, so that judge.py can ask it. Run it with
tools/python/requirements-peer-recommendation.txt:

    python examples/recommendation/service.py --port 8010
    python examples/recommendation/judge.py --url http://127.0.0.1:8010
"""

import argparse
import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException
from judge import TABLES
from offline import FOLDER, Pipeline
from pydantic import BaseModel, Field


class Input(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[int]


class Request(BaseModel):
    id: str | None = None
    inputs: list[Input] = Field(min_length=1, max_length=1)


def service(pipeline: Pipeline) -> FastAPI:
    app = FastAPI()

    @app.get("/v2/health/ready")
    def ready() -> dict[str, bool]:
        return {"ready": True}

    # Not `async`: the work is in NumPy and ONNX Runtime, and FastAPI runs it on a thread of its pool.
    @app.post("/v2/models/recommend/infer")
    def infer(request: Request) -> dict:
        user = request.inputs[0]
        if (user.name, user.shape, user.datatype, len(user.data)) != ("user", [1], "INT64", 1):
            raise HTTPException(400, "the input is 'user', INT64 [1]")
        answer = pipeline.recommend(user.data[0])
        count = len(answer["items"])
        kinds = {"items": "INT64", "scores": "FP32", "reasons": "BYTES"}
        outputs = [{"name": name, "shape": [count], "datatype": kind, "data": answer[name]} for name, kind in kinds.items()]
        return {"model_name": "recommend", "id": request.id, "outputs": outputs}

    return app


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8010, help="port to listen on, 0 for a free one (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run of a model (default %(default)s)")
    parser.add_argument("--models", type=Path, default=FOLDER / "models")
    parser.add_argument("--tables", type=Path, default=TABLES)
    chosen = parser.parse_args()
    if chosen.threads < 1:
        parser.error("--threads is at least 1")
    try:
        pipeline = Pipeline(chosen.models, chosen.tables, chosen.threads)
    except OSError as error:
        print(f"{error}\nmake the tables with: python examples/recommendation/make_tables.py", file=sys.stderr)
        return 1
    bound = socket.socket(socket.AF_INET6 if ":" in chosen.host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((chosen.host, chosen.port))
    except OSError as error:
        sys.exit(f"{chosen.host}:{chosen.port} cannot be listened on: {error}")
    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    print(f"http http://{host}:{bound.getsockname()[1]}", flush=True)
    # Who measures it asks others in between, and comes back on the same connection.
    config = uvicorn.Config(service(pipeline), log_level="warning", access_log=False, timeout_keep_alive=600)
    uvicorn.Server(config).run(sockets=[bound])
    return 0


if __name__ == "__main__":
    sys.exit(main())
