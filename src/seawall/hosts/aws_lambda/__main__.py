"""`python -m seawall.hosts.aws_lambda [HANDLER]`: the runtime of a function.

As a custom runtime's bootstrap, as a container image's entry point, and by the exec wrapper on the
managed runtime. Without an argument the handler is the function's own, `_HANDLER`.
"""

import os
import sys

from seawall.hosts.aws_lambda.runtime import run_runtime

if __name__ == "__main__":
    sys.exit(run_runtime(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("_HANDLER", "")))
