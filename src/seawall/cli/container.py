"""`python -m seawall.cli.container [CONFIG]`: entry point of the container image.

On Lambda, recognised by AWS_LAMBDA_RUNTIME_API, it runs the Lambda runtime, and elsewhere the HTTP
server. `--health` is Docker's health check: it queries `/livez`.
"""

import os
import sys

__all__ = ["main"]

_HEALTH_SECONDS = 3.0


def main(arguments: list[str]) -> int:
    """Run the host; return the exit status. CONFIG defaults to SEAWALL_CONFIG."""
    if arguments == ["--health"]:
        return _health(os.environ)
    config = arguments[0] if arguments else os.environ.get("SEAWALL_CONFIG", "seawall.toml")
    if os.environ.get("AWS_LAMBDA_RUNTIME_API"):
        from seawall.hosts.aws_lambda.runtime import run_runtime  # noqa: PLC0415 - only on Lambda

        return run_runtime(config)
    from seawall.cli.main import main as command  # noqa: PLC0415

    return command(["serve", config, "--json"])


def _health(environment: "os._Environ[str]") -> int:
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - only for --health

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
