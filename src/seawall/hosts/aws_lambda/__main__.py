"""`python -m seawall.hosts.aws_lambda [HANDLER]`: the runtime of a function.

As a custom runtime's bootstrap, as a container image's entry point, and by the exec wrapper on the
managed runtime. Without an argument the handler is the function's own, `_HANDLER`.
"""

import gc

gc.disable()  # until all is loaded: what is imported stays, and looking through it costs time

import os  # noqa: E402
import sys  # noqa: E402

from seawall.hosts.aws_lambda.runtime import run_runtime  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_runtime(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("_HANDLER", "")))
