"""A decoding process like the real one, but that some films do to it what a broken codec would.

It is the real program with other steps; which of them is taken stands in the film's own Image
Comments.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from pydicom import dcmread

from dicom_io.decoding_child import STEPS, Answer, main

HELD: list[bytearray] = []


def misbehave(request: Mapping[str, Any]) -> Answer:
    match dcmread(request["path"], stop_before_pixels=True).get("ImageComments"):
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "take a second":
            time.sleep(1)
        case "spin":
            while True:
                pass
        case "leak":
            HELD.append(bytearray(500 << 20))
        case "lie":
            return Answer({"rows": 10**6, "columns": 10**6, "is_padded": False})
        case "babble":
            os.write(int(sys.argv[1]), b"\xff" * 64)
        case "fail":
            raise KeyError("Doe^Jane")
    return STEPS["decode"](request)


if __name__ == "__main__":
    main({**STEPS, "decode": misbehave})
