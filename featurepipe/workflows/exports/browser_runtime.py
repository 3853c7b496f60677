"""ONNX Runtime for browsers: two files of its npm package, at one version and digest."""

import logging
import os
import tarfile
from pathlib import Path

from featurepipe.errors import NotWritableError, UsageError
from featurepipe.features.weights import retrieve
from featurepipe.files import disk_full_named, user_cache

logger = logging.getLogger(__name__)

_PACKAGE, _VERSION = "onnxruntime-web", "1.30.0"
# As npm states it, in hexadecimal; `npm view onnxruntime-web@1.30.0 dist.integrity`.
_SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
_REGISTRY = "https://registry.npmjs.org"

FILES = {
    "onnxruntime-web.js": "package/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime-web.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
"""The files that a page needs, by the names that it gives them."""

_MAX_BYTES = 10**8

LICENCE = f"""\
ONNX Runtime Web {_VERSION} (onnxruntime-web.js, onnxruntime-web.wasm)

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def fetch_browser_runtime() -> dict[str, bytes]:
    """The files of ONNX Runtime that a page needs, from the npm registry or the user's cache.

    Returns
    -------
    dict of str to bytes
        By the names of `FILES`.

    Raises
    ------
    UsageError
        If the registry cannot be reached, or gives another file.
    NotWritableError
        If the cache cannot be written to.
    """
    # Imported here since it is slow, and comes with pooch only.
    from requests import RequestException

    # npm's own name, which is in lower case.
    registry = os.environ.get("npm_config_registry") or _REGISTRY  # noqa: SIM112
    path = user_cache() / "npm" / f"{_PACKAGE}-{_VERSION}.tgz"
    if not path.exists():
        logger.info("Downloading %s %s (33 MB) …", _PACKAGE, _VERSION)
    try:
        with disk_full_named(path):
            retrieve(f"{registry.rstrip('/')}/{_PACKAGE}/-/{path.name}", f"sha512:{_SHA512}", path)
    except RequestException as error:
        raise UsageError(_advise("could not be fetched", error, path)) from error
    except ValueError as error:
        raise UsageError(_advise("is another file than expected", error, path)) from error
    except OSError as error:
        raise NotWritableError(
            f"{path} cannot be written ({error.strerror or error}). Set FEATUREPIPE_CACHE to a "
            "folder that you can write to."
        ) from error
    return _read(path)


def _read(path: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(path) as archive:
        for name, member in FILES.items():
            opened = archive.extractfile(member)
            assert opened is not None
            files[name] = opened.read(_MAX_BYTES)
    return files


def _advise(failure: str, error: Exception, path: Path) -> str:
    # Not the address, which may hold a password.
    return (
        f"{_PACKAGE} {_VERSION}, which runs the model in the page, {failure} at the npm registry "
        f"({type(error).__name__}). Set npm_config_registry to the address of a registry that you "
        f"can reach, or put its file {path.name} at {path}."
    )
