"""`python -m seawall.hosts.aws_lambda [HANDLER]`: entry point of the runtime.

Used by the bootstrap of a custom runtime, a container image, and the exec wrapper on the managed
runtime. HANDLER defaults to that of the function, `_HANDLER`.
"""

import gc

gc.disable()  # during imports there is no garbage, and collecting costs time

import os  # noqa: E402
import sys  # noqa: E402

from seawall.hosts.aws_lambda.module_archive import use_archive  # noqa: E402

use_archive(__file__.rpartition("/seawall/")[0])

from seawall.hosts.aws_lambda.runtime import run_runtime  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_runtime(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("_HANDLER", "")))
