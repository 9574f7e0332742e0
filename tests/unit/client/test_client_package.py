"""What the SDK needs, and what it says about itself."""

import subprocess
import sys

import keepline.client

ALLOWED = {"keepline", "orjson", "websockets"}


def test_it_needs_websockets_and_orjson_only() -> None:
    listing = "import sys, keepline.client; print('\\n'.join(sorted({n.split('.')[0] for n in sys.modules})))"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", listing], capture_output=True, text=True, timeout=60, check=True
    )
    bare = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    at_start = {name.split(".")[0] for name in bare.stdout.split()}
    others = set(loaded.stdout.split()) - at_start - set(sys.stdlib_module_names)
    assert others == ALLOWED


def test_every_public_name_exists_and_is_described() -> None:
    assert keepline.client.__all__ == sorted(keepline.client.__all__)
    for name in keepline.client.__all__:
        assert getattr(keepline.client, name).__doc__, name
