"""Health check of the container: a service must respond at /healthz; other commands are healthy while they run."""

import argparse
import http.client
import sys
from pathlib import Path

# The command line of the container's main process.
command_line = Path("/proc/1/cmdline").read_text().split("\0")
if "serve" in command_line:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # The defaults are those of `deeprank serve`.
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    address = parser.parse_known_args(command_line)[0]
    connection = http.client.HTTPConnection(address.host, address.port, timeout=5)
    connection.request("GET", "/healthz")
    sys.exit(connection.getresponse().status != 200)
