"""The files of the demo page, and its security headers."""

import re
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

import keepline
from keepline.ops.http import HttpError

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")


def find_web_folder() -> Path:
    """The folder of the browser SDK: inside the installed package, or in the checkout."""
    packaged = Path(__file__).parent / "web"
    return packaged if packaged.is_dir() else Path(keepline.__file__).parents[1] / "clients" / "js"


def page_files(folder: Path) -> tuple[Path, dict[str, Path]]:
    """The page and the files that it loads, by path: its scripts and styles, and the SDK."""
    demo = folder / "demo"
    files = {f"/{path.name}": path for path in sorted(demo.glob("*")) if path.suffix in (".js", ".css")}
    return demo / "index.html", {**files, "/keepline.js": folder / "keepline.bundle.js"}


def visited_host(request: web.Request) -> str:
    """The host in the visitor's URL, without its port. Raises HttpError 400."""
    try:
        host = request.url.host or ""
    except ValueError:
        host = ""
    literal = f"[{host}]" if ":" in host else host
    if not _HOST.fullmatch(literal):
        raise HttpError(400, "bad_request", "the Host header is missing or malformed")
    return literal


def security_headers(sockets: Sequence[str]) -> dict[str, str]:
    """Headers of the page: only its own scripts and styles, and connections to itself and to `sockets`."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "media-src": "'self' blob:",
        "connect-src": " ".join(["'self'", *sockets]),
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
        **FILE_HEADERS,
    }


FILE_HEADERS = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of all responses."""


def socket_source(url: str) -> str:
    """A WebSocket address without its path for the page's policy; policies do not support IPv6 addresses."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}:" if rest.startswith("[") else f"{scheme}://{rest.partition('/')[0]}"
