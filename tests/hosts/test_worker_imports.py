"""An idle worker is as large as what it has imported: this is the budget, as a set of modules."""

import os
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT

# What no worker of the store example needs before a request needs it.
NEVER = {
    "argparse",
    "boto3",
    "cryptography",
    "joserfc",
    "numpy",
    "pydantic",
    "scipy",
    "seawall.cli",
    "seawall.identity.jwt",
    "seawall.lab",
    "seawall.plan",
    "seawall.storage.dynamodb",
    "seawall.tools.mcp",
    "seawall.tools.openapi",
    "starlette",
    "unittest",
}

SCRIPT = """
import os
import signal
import sys
from seawall.config import ServerSettings
from seawall.hosts.http.worker import load_orchestrator, open_listeners, reserve_port, run_worker

orchestrator = load_orchestrator("examples/store/seawall.toml")
settings = ServerSettings(port=0)

def ready():
    print("\\n".join(sys.modules))
    os.kill(os.getpid(), signal.SIGTERM)

with reserve_port(settings) as reserved:
    listeners = open_listeners(settings, reserved.getsockname()[1])
    status = run_worker(orchestrator, listeners, on_ready=ready, all_ready=lambda: True)
sys.exit(status)
"""


def test_an_idle_worker_has_imported_little(tmp_path: Path) -> None:
    environment = os.environ | {
        "SEAWALL_SESSIONS__PATH": str(tmp_path / "sessions.db"),
        "SEAWALL_TOOLS__STORE__DATABASE": str(tmp_path / "store.db"),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert "seawall.intents.light" in found
    assert {name for name in found if any(_is_within(name, each) for each in NEVER)} == set()


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")
