"""The image's health check: exit code 0 while the agent's loop moves.

It reads the settings by which the agent listens from the same environment. The certificate is not
checked: the question goes to this very container, and its answer is no secret.
"""

import http.client
import os
import ssl
import sys

_DEADLINE_SECONDS = 4.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}  # noqa: S104 - nothing is bound


def main() -> int:
    """Ask /livez and return the exit code."""
    host, _, port = os.environ.get("RECONCILER_LISTEN", "127.0.0.1:8080").rpartition(":")
    host = _ANY_ADDRESS.get(host, host).strip("[]")
    connection: http.client.HTTPConnection
    if os.environ.get("RECONCILER_TLS_CERT_FILE"):
        context = ssl._create_unverified_context()  # noqa: S323 - see above
        connection = http.client.HTTPSConnection(
            host, int(port), timeout=_DEADLINE_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, int(port), timeout=_DEADLINE_SECONDS)
    try:
        connection.request("GET", "/livez")
        answer = connection.getresponse()
        sys.stdout.write(answer.read(1000).decode(errors="replace"))
    except OSError as error:
        sys.stdout.write(f"nothing answers at {host}:{port}: {error}")
        return 1
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
