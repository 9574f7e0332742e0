"""QR codes of links, for phones: on the page and on the terminal. The library comes with the extra `embedded`."""

import io


def svg(link: str) -> bytes | None:
    """The code as a picture; None where the library is missing."""
    try:
        import segno
    except ImportError:
        return None
    picture = io.BytesIO()
    segno.make(link, error="m", micro=False).save(picture, kind="svg", scale=4, border=4, light="#fff")
    return picture.getvalue()


def terminal(link: str) -> str:
    """The code in characters; "" where the library is missing."""
    try:
        import segno
    except ImportError:
        return ""
    text = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(text, compact=True, border=2)
    return text.getvalue()
