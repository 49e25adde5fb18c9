"""Parts that the operating system has: what is missing, and its installation with apt."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from msgspec import Struct

from tests.parts import require
from tests.parts.dynamodb_local import JAVA, java_version

__all__ = [
    "PACKAGES",
    "browser",
    "install_packages",
    "missing_balancer",
    "missing_browser",
    "missing_node",
    "missing_promtool",
    "missing_valgrind",
    "require_browser",
    "wanted_packages",
]

_BROWSER = "chromium-headless-shell"
_SBIN = "/usr/sbin:/usr/local/sbin"  # where Debian has servers; not on everybody's PATH


def browser() -> str | None:
    """The browser's program, where there is one: best the one without windows.

    It is Chromium's engine alone, and takes half the processor time for a page and a start.
    """
    names = (_BROWSER, "chromium", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def missing_balancer(kind: str = "haproxy") -> str:
    """Why the load balancer cannot run here; empty if it can."""
    found = shutil.which(kind) or shutil.which(kind, path=_SBIN)
    return "" if found else f"{kind} is not installed: apt install {kind}"


def missing_browser() -> str:
    """Why pages cannot be rendered here; empty if they can."""
    return "" if browser() else f"no browser is installed: apt install {_BROWSER}"


def _missing_shell() -> str:
    """Why pages take twice the processor time that they could; empty if no package helps."""
    if shutil.which(_BROWSER):
        return ""
    return missing_browser() or (f"{_BROWSER} is not installed" if _is_installable() else "")


def _is_installable() -> bool:
    """Whether we may install the browser and apt has it: not every distribution's does."""
    asked = ("apt-cache", "show", _BROWSER)
    return (
        _may_install() and subprocess.run(asked, check=False, capture_output=True).returncode == 0
    )


def _may_install() -> bool:
    skipped = os.environ.get("SEAWALL_SYSTEM_PARTS") == "skip"
    return not skipped and os.geteuid() == 0 and shutil.which("apt-get") is not None


def require_browser() -> str:
    """The browser's program; a test without it is skipped, or fails in CI."""
    require(missing_browser())
    return browser() or ""


def missing_node() -> str:
    """Why JavaScript cannot run here; empty if it can."""
    there = shutil.which("node") and shutil.which("npm")
    return "" if there else "node is not installed: apt install nodejs npm"


def missing_promtool() -> str:
    """Why Prometheus' rules cannot be checked here; empty if they can."""
    return "" if shutil.which("promtool") else "promtool is not installed: apt install prometheus"


def missing_valgrind() -> str:
    """Why instructions cannot be counted here; empty if they can."""
    there = shutil.which("callgrind_control")
    return "" if there else "valgrind is not installed: apt install valgrind"


def _missing_java() -> str:
    return "" if java_version() >= JAVA else f"Java {JAVA} or later is not installed"


class Package(Struct, frozen=True):
    """Packages of Debian and Ubuntu, their use in tests, and what says that they are missing.

    Those that are not needed are better than what does without them.
    """

    names: tuple[str, ...]
    purpose: str
    missing: Callable[[], str]
    needed: bool = True


PACKAGES = (
    Package(("default-jre-headless",), "runs DynamoDB Local: the DynamoDB store", _missing_java),
    Package(("nodejs", "npm"), "JavaScript of exports and pages; fetches parts", missing_node),
    Package(("haproxy",), "several servers behind a balancer", missing_balancer),
    Package(("nginx",), "another balancer, and proxies", lambda: missing_balancer("nginx")),
    Package(("prometheus",), "promtool, which checks alert rules", missing_promtool),
    Package((_BROWSER,), "renders pages and reports", _missing_shell, needed=False),
    Package(("valgrind",), "counts the instructions of a turn", missing_valgrind),
)


def wanted_packages() -> list[Package]:
    """What is not installed yet."""
    return [package for package in PACKAGES if package.missing()]


def install_packages() -> None:
    """Say which system packages are missing and what for; install them with apt as root.

    SEAWALL_SYSTEM_PARTS=skip leaves the system alone.
    """
    wanted = wanted_packages()
    if not wanted:
        return
    names = [name for package in wanted for name in package.names]
    width = max(len(" ".join(package.names)) for package in wanted)
    _say("Some tests need programs that are not installed:")
    for package in wanted:
        _say(f"  {' '.join(package.names):{width}}  {package.purpose}")
    if os.environ.get("SEAWALL_SYSTEM_PARTS") == "skip":
        _say("SEAWALL_SYSTEM_PARTS=skip: nothing is installed; tests that need them are skipped.")
    elif not _may_install():
        _say(f"Install them yourself: apt install {' '.join(names)}")
        _say("Until then, tests that need them are skipped.")
    else:
        _say("Installing them with apt-get (SEAWALL_SYSTEM_PARTS=skip does without) ...")
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names],
        ):
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environment)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
