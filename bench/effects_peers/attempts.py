"""Attempts in children of a process that has imported their framework already.

    python attempts.py DRIVER MODULE ...

Each line on standard input has the environment of an attempt as JSON; the answer is its status. A
child is a new process in all that a framework keeps, and imports nothing again.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import traceback

SECONDS = 120  # of an attempt, at most


def run(driver: str, environment: dict[str, str]) -> int:
    """Run the driver in this process."""
    signal.alarm(SECONDS)
    os.environ.update(environment)
    try:
        runpy.run_path(driver, run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - whatever ends the attempt
        traceback.print_exc()
        return 1
    return 0


for module in sys.argv[2:]:
    importlib.import_module(module)
for line in sys.stdin:
    child = os.fork()
    if not child:
        status = run(sys.argv[1], json.loads(line))
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
