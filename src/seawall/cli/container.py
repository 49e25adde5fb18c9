"""`python -m seawall.cli.container [CONFIG]`: entry point of the container image.

Where AWS_LAMBDA_RUNTIME_API is set, which Lambda does, it is the runtime of a function; otherwise
the HTTP server. With `--health` it checks that the server is alive, for Docker's health check.
"""

import os
import sys

__all__ = ["main"]

_HEALTH_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """Start; the default configuration is SEAWALL_CONFIG. Returns the exit status."""
    if arguments == ["--health"]:
        return _health(os.environ)
    config = arguments[0] if arguments else os.environ.get("SEAWALL_CONFIG", "seawall.toml")
    if os.environ.get("AWS_LAMBDA_RUNTIME_API"):
        from seawall.hosts.aws_lambda.runtime import run_runtime  # noqa: PLC0415 - either, or

        return run_runtime(config)
    from seawall.cli.main import main as command  # noqa: PLC0415

    return command(["serve", config, "--json"])


def _health(environment: "os._Environ[str]") -> int:
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - only here

    port = int(environment.get("SEAWALL_SERVER__PORT", "8080"))
    connection = HTTPConnection("127.0.0.1", port, timeout=_HEALTH_SECONDS)
    try:
        connection.request("GET", "/livez")
        return int(connection.getresponse().status != 200)
    except (OSError, HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
