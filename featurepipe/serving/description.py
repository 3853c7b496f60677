"""What the API says of itself: OpenAPI, and a page that needs no other host."""

import html
from typing import Any

from featurepipe.serving.limits import MAX_IMAGES, Limits

_BEST = {
    "type": "object",
    "properties": {
        "class": {"type": "string"},
        "probability": {"type": "number"},
        "given": {"type": "boolean", "description": "Whether it is the answer, or one of a set."},
        "unknown": {"type": "boolean", "description": "Whether there is no answer."},
    },
    "required": ["class", "probability", "given", "unknown"],
}
_ANSWERS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "image": {
                "type": ["string", "integer"],
                "description": "The file name, or the position where there is none.",
            },
            "attributes": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": _BEST},
                "description": "For each attribute the best classes, the most probable first.",
            },
            "refused": {"type": "string", "description": "Why the image cannot be read."},
        },
        "required": ["image"],
    },
}
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
_FILES = {
    "type": "object",
    "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
_FILE = {"type": "string", "format": "binary"}


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


PREDICT: dict[str, Any] = {
    "description": (
        "Send images as files of multipart/form-data, or one image as the body. The answer is a "
        "list with one object for each image, in their order, as featurepipe predict --json "
        "prints it: attributes, or refused for an image that cannot be read."
    ),
    "responses": {
        200: _response("At least one image has an answer.", _ANSWERS),
        400: _response("The form cannot be read, or has no image or too many.", _ERROR),
        408: _response("The body did not arrive in time.", _ERROR),
        413: _response("The body is too large.", _ERROR),
        422: _response("No image can be read.", _ANSWERS),
        500: _response("The server failed.", _ERROR),
        503: _response("The server is busy. Try again after Retry-After.", _ERROR),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _FILES},
                "image/*": {"schema": _FILE},
                "application/octet-stream": {"schema": _FILE},
            },
        }
    },
}
"""What FastAPI is told about the path."""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body {{ font: 16px/1.5 sans-serif; max-width: 46em; margin: 2em auto; padding: 0 1em }}
pre {{ background: #eee; padding: .5em; overflow: auto }}
td, th {{ text-align: left; padding-right: 1em; vertical-align: top }}</style></head>
<body>
<h1>{title}</h1>
<p>{description} <a href="/openapi.json">openapi.json</a> describes the API for programs.</p>
{paths}
<h2>Examples</h2>
<pre>curl -F image=@one.jpg -F image=@other.png http://127.0.0.1:8000/predict
curl --data-binary @one.jpg http://127.0.0.1:8000/predict</pre>
<h2>Limits</h2>
<p>A body has at most {max_bytes:,} bytes and {max_images} images, and arrives within {timeout:g} s.
At most {max_in_flight} requests are in flight.</p>
</body>
</html>
"""


def docs_page(openapi: dict[str, Any], limits: Limits) -> str:
    """The page about the API.

    Parameters
    ----------
    openapi : dict
        Its description in OpenAPI.
    limits : Limits
    """
    about = openapi["info"]
    return _PAGE.format(
        title=html.escape(about["title"]),
        description=html.escape(about["description"]),
        paths="\n".join(
            _section(f"{method.upper()} {path}", said)
            for path, methods in openapi["paths"].items()
            for method, said in methods.items()
        ),
        max_bytes=limits.max_bytes,
        max_images=MAX_IMAGES,
        timeout=limits.timeout_s,
        max_in_flight=limits.max_in_flight,
    )


def _section(title: str, said: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{status}</td><td>{html.escape(response['description'])}</td></tr>"
        for status, response in said["responses"].items()
    )
    return (
        f"<h2>{html.escape(title)}</h2><p>{html.escape(said['summary'])}. "
        f"{html.escape(said.get('description', ''))}</p>"
        f"<table><tr><th>Status</th><th>Meaning</th></tr>{rows}</table>"
    )
