"""What of the dependencies can be imported without the interpreter lock, and in subinterpreters.

    PYTHON bench/threads/imports.py MODULE…

Needs nothing but the modules. Each is imported in a process of its own: in the main interpreter,
then in a subinterpreter with a lock of its own. Prints one JSON line for each.
"""

import importlib.metadata
import json
import subprocess
import sys

_MAIN = """
import sys
import {module}
print("imported" if getattr(sys, "_is_gil_enabled", lambda: True)() else "imported without lock")
"""
_SUB = """
import _interpreters
each = _interpreters.create("isolated")
failure = _interpreters.exec(each, "import {module}")
print("imported" if failure is None else failure.msg)
"""


def tried(code: str) -> str:
    """What a program has printed, or the last line of its error."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1][:160] if lines else f"ended with {done.returncode}"


def main(modules: list[str]) -> None:
    """Try all."""
    for module in modules:
        try:
            version = importlib.metadata.version(module.partition(".")[0])
        except importlib.metadata.PackageNotFoundError:
            version = ""
        result = {
            "module": module,
            "version": version,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}",
            "main": tried(_MAIN.format(module=module)),
            "subinterpreter": tried(_SUB.format(module=module)),
        }
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
