"""The baseline of ``benchmark serve``: a checkpoint behind one endpoint of FastAPI, as its documentation writes them.

``python -m detseg.benchmarks.speed.plain_endpoint MODEL DEVICE`` prints the address and serves until it is killed.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, File

from detseg.images import read_header
from detseg.inference.predictor import Predictor
from detseg.serving.reply import to_reply


def main(path: str, device: str) -> None:
    predictor, app = Predictor(path, device), FastAPI()

    @app.post("/predict")
    def predict(file: bytes = File()) -> Any:
        return to_reply(predictor(file), read_header(file).size_hw, predictor)

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    main(*sys.argv[1:])
