"""A page stays small enough to be sent: its pictures are made smaller, never dropped, and the page says so."""

from __future__ import annotations

import base64
import re
from collections import Counter

import cv2
import numpy as np

LIMIT = 5_000_000  # bytes
_PICTURE = re.compile(r"data:image/(jpeg|png);base64,([A-Za-z0-9+/=]+)")
_STEPS = ((1.0, 75), (0.75, 70), (0.5, 70), (0.35, 60), (0.25, 50))  # of the side, quality of a JPEG
_LEAST = 48  # pixels of a side
NOTE = "<!-- size -->"  # where the page says what was done to it


def shrink(text: str, limit: int = LIMIT) -> str:
    """The page of at most `limit` bytes, or as small as its pictures allow.

    The largest pictures give way first: every one above a common size is drawn smaller, the others stay as they are.
    """
    size = len(text.encode())
    if size <= limit:
        return text
    uses = Counter(match.group() for match in _PICTURE.finditer(text))
    found = sorted(uses, key=len, reverse=True)
    drawn = {uri: uri for uri in found}
    for scale, quality in _STEPS:
        for uri in found:
            if size <= limit:
                break
            smaller = _smaller(uri, scale, quality)
            if len(smaller) < len(drawn[uri]):
                size -= (len(drawn[uri]) - len(smaller)) * uses[uri]
                drawn[uri] = smaller
    count = sum(uri != small for uri, small in drawn.items())
    said = f"{count} of {len(found)} pictures are drawn smaller than they were made, to keep this file below "
    said += f"{limit / 1e6:g} MB." if size <= limit else f"{limit / 1e6:g} MB; it has {size / 1e6:.1f} MB all the same."
    text = _PICTURE.sub(lambda match: drawn[match.group()], text)
    return text.replace(NOTE, said, 1)


def _smaller(uri: str, scale: float, quality: int) -> str:
    """The picture as a JPEG with its sides times `scale`; unchanged where it cannot be read."""
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        return uri
    sides = [max(min(side, _LEAST), round(side * scale)) for side in image.shape[1::-1]]
    done, data = cv2.imencode(
        ".jpg", cv2.resize(image, sides, interpolation=cv2.INTER_AREA), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}" if done else uri
