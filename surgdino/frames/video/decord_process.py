"""The process that decord runs in: a request as JSON on standard input, replies on standard output.

Only `decoders/decord.py` starts it, reads from it, and kills it when it hangs.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    """Answer with the time stamps of all frames, then with the frames asked for: their shape, then their bytes."""
    request = json.load(sys.stdin)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints must not mix with the replies

    import decord

    reader = decord.VideoReader(request["path"], ctx=decord.cpu(0), num_threads=1)
    times = reader.get_frame_timestamp(range(len(reader)))[:, 0].tolist()
    replies.write(json.dumps({"times": times}).encode() + b"\n")
    for number in request["numbers"]:
        image = reader[number].asnumpy()
        replies.write(json.dumps({"shape": image.shape[:2]}).encode() + b"\n")
        replies.write(image.tobytes())
    replies.flush()
