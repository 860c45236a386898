"""A client for echo_server.py: it sends each line that it reads, and prints what comes back."""

import os
import sys

from wsframe.sync import connect

with connect(f"ws://localhost:{os.environ.get('PORT', 8001)}/") as ws:
    for line in sys.stdin:
        ws.send(line)
        print(ws.recv(), end="", flush=True)
