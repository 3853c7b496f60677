"""Request bodies: the images in them, read within limits of bytes and time."""

import asyncio

# Starlette reads forms with it, and would notice only then that it is missing.
import python_multipart  # noqa: F401
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from featurepipe.serving.limits import CLOSE, MAX_IMAGES, Limits

_SEND_FILES = "Send images as files of multipart/form-data, or one image as the body."


async def read_images(request: Request, limits: Limits) -> list[tuple[str | int, bytes]]:
    """The images of a request, each with its file name or position.

    Parameters
    ----------
    request : Request
        Its body is a form of files or, with any other content type, one image.
    limits : Limits

    Raises
    ------
    HTTPException
        400 if the form cannot be read or has no image or more than `MAX_IMAGES`, 408 if the body
        does not arrive in time, 413 if it is too large.
    ClientDisconnect
        If the client has gone.
    """
    if int(request.headers.get("content-length", 0)) > limits.max_bytes:
        raise limits.too_large()
    bounded = Request(request.scope, _BoundedBody(request, limits).receive)
    try:
        async with asyncio.timeout(limits.timeout_s):
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "multipart/form-data":
                return await _read_form(bounded)
            return [(0, await bounded.body())]
    except TimeoutError:
        raise limits.too_slow() from None


class _BoundedBody:
    """Receives a body up to its limit."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._request, self._limits = request, limits
        self._n_bytes = 0

    async def receive(self) -> Message:
        message = await self._request.receive()
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > self._limits.max_bytes:
            raise self._limits.too_large()
        return message


async def _read_form(request: Request) -> list[tuple[str | int, bytes]]:
    form = request.form(max_files=MAX_IMAGES, max_fields=MAX_IMAGES)
    try:
        async with form as fields:
            files = list(fields.multi_items())
            for name, file in files:
                if not isinstance(file, UploadFile):
                    raise HTTPException(400, f"The field {name!r} is not a file. {_SEND_FILES}")
            if not files:
                raise HTTPException(400, f"The form has no image. {_SEND_FILES}")
            return [
                (file.filename or position, await file.read())
                for position, (_, file) in enumerate(files)
                if isinstance(file, UploadFile)
            ]
    except UnicodeError:
        # Of a charset that the request itself names.
        raise HTTPException(400, "The names in the form cannot be read.", CLOSE) from None
    except HTTPException as error:
        if error.status_code != 400:
            raise
        # What is left of such a form is not read.
        raise HTTPException(400, error.detail, CLOSE) from None
