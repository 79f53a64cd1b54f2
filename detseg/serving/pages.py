"""The pages of the server. They load nothing from elsewhere."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse

POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: what a page may load and send to is this server only."""


def try_page() -> HTMLResponse:
    """The page where images are predicted."""
    return _page(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def api_page(schema: dict[str, Any]) -> HTMLResponse:
    """A list of the paths of an OpenAPI schema."""
    title = escape(f"{schema['info']['title']} {schema['info']['version']}")
    parts = []
    for path, methods in schema["paths"].items():
        for method, details in methods.items():
            names = "".join(
                f"<li><code>{escape(item['name'])}</code> {escape(item.get('description', ''))}</li>"
                for item in details.get("parameters", ())
            )
            parts.append(
                f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
                f"<p>{escape(details.get('description') or details.get('summary', ''))}</p><ul>{names}</ul>"
            )
    style = "font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:1rem auto;padding:0 1rem;overflow-wrap:anywhere"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    head += f"<title>{title}</title>"
    links = '<p><a href="openapi.json">openapi.json</a> · <a href="./">try it</a></p>'
    text = f'<div style="{style}"><h1>{title}</h1>{links}{"".join(parts)}</div>'
    return _page(f'<!doctype html><html lang="en">{head}{text}</html>')


def _page(html: str) -> HTMLResponse:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(html, headers=headers)
