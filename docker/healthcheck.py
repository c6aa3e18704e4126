"""Whether this container is well: a service must answer /healthz, anything else is well as long as it runs."""

import argparse
import http.client
import sys
from pathlib import Path

# What the container was started with, or what took its place.
words = Path("/proc/1/cmdline").read_text().split("\0")
if "serve" in words:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # As in `deeprank serve`.
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    where = parser.parse_known_args(words)[0]
    connection = http.client.HTTPConnection(where.host, where.port, timeout=5)
    connection.request("GET", "/healthz")
    sys.exit(connection.getresponse().status != 200)
