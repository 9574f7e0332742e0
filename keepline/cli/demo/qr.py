"""QR codes of links, for phones: on the page and in the terminal. The library is part of the extra `embedded`."""

import io


def svg(link: str) -> bytes | None:
    """The code as SVG; None if the library is not installed."""
    try:
        import segno
    except ImportError:
        return None
    picture = io.BytesIO()
    segno.make(link, error="m", micro=False).save(picture, kind="svg", scale=4, border=4, light="#fff")
    return picture.getvalue()


def terminal(link: str) -> str:
    """The code as text; "" if the library is not installed."""
    try:
        import segno
    except ImportError:
        return ""
    text = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(text, compact=True, border=2)
    return text.getvalue()
