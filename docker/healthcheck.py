"""Asks an address of this container and says what it answered: exit status 0 for 200, else 1.

    python -I healthcheck.py http://127.0.0.1:8000/health/live

Images have no curl. What is printed stands in `docker inspect`, so a service that is not ready says there why.
"""

import http.client
import sys
from urllib.parse import urlsplit

TIMEOUT_S = 4.0


def main(url: str) -> int:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", address.path)
        response = connection.getresponse()
        body = response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as exc:
        print(f"{url} does not answer: {exc}")
        return 1
    finally:
        connection.close()
    print(f"{response.status} {body}")
    return 0 if response.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
