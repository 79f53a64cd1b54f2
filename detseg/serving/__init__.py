"""Serve predictions over HTTP, and ask for them. The client needs the standard library only; the server the extra
``serve``."""

from detseg.serving.client import Client, ServerError

__all__ = ["Client", "ServerError"]
