"""Serve a trained model over HTTP."""

from __future__ import annotations

import os
from dataclasses import replace

from detseg.errors import DataError
from detseg.options import ServeConfig
from detseg.runtime.reporter import Reporter, terminal

TOKEN = "DETSEG_TOKEN"
"""Environment variable of the token."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(config: ServeConfig, *, reporter: Reporter | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT; then answer all that were accepted, and return.

    Raises:
        DataError: the extra ``serve`` is not installed, the run cannot be loaded, or the address is not available.
    """
    try:
        from detseg.serving.app import create_app
        from detseg.serving.server import listen, run_server
    except ImportError as error:
        raise DataError(
            f"serve needs packages that are not installed ({error.name}): pip install 'detseg[serve]'"
        ) from error
    reporter = reporter or terminal()
    config = replace(config, token=config.token or os.environ.get(TOKEN) or None)
    with listen(config) as listening:  # before the network is loaded, which takes longer
        from detseg.inference.predictor import Predictor

        app = create_app(Predictor(config.run, config.device, then=config.then), config)
        host = f"[{config.host}]" if ":" in config.host else config.host
        url = f"http://{host}:{listening.getsockname()[1]}"
        if config.host not in LOOPBACK and config.token is None:
            reporter.warning(f"everyone who can reach {config.host} can use this server; --token demands a secret")
        served = f"{config.run}, then {config.then}," if config.then else config.run
        reporter.line(f"serving {served} at {url} (Ctrl-C ends it); try it on {url}/, API: {url}/docs")
        run_server(app, config, listening)
    reporter.line("stopped; all requests were answered")
