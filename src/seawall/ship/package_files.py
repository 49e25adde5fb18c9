"""Selection of the user's files for a package: code and configuration, no secrets."""

import os
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from seawall.errors import ConfigError
from seawall.ship.ignore_file import IgnorePatterns, parse_ignore_patterns

__all__ = ["IGNORE_FILE", "package_files"]

IGNORE_FILE = ".seawallignore"
"""The user's ignore file, in the syntax of .gitignore; `!` also includes default exclusions."""

# Excluded by default, in the same syntax.
_NOT_CODE = (
    *(".*", "__pycache__/", "*.pyc", "node_modules/", "build/", "dist/", "venv/", "*.egg-info/"),
    *("*.db", "*.db-*", "*.zip", "*.lock", "/modules.cpython-*.archive"),
)
# Folders of other programs: never scanned.
_SKIPPED_FOLDERS = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "node_modules", "__pycache__"}
)
_SECRET_NAMES = (
    *(".env", ".env.*", "*.env", ".netrc", ".pypirc", ".npmrc", ".pgpass", ".git-credentials"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.tfstate", "*.tfvars"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "kubeconfig", "credentials", "accesskeys.csv"),
    *("credentials.json", "credentials.csv", "credentials.toml", "credentials.y*ml"),
    *("secrets.json", "secrets.toml", "secrets.y*ml", "*service?account*.json"),
)
_NOT_SECRET_NAMES = (".env.example", ".env.sample", ".env.template", "*.pub")
_SECRET_FOLDERS = frozenset({".aws", ".ssh", ".gnupg", ".kube", ".docker", ".azure", ".gcloud"})
_CONTENTS = (
    (re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"), "a private key"),
    (
        re.compile(rb"(?<![A-Z0-9])(?:AKIA|ASIA)(?![A-Z0-9]*EXAMPLE)[A-Z0-9]{16}(?![A-Z0-9])"),
        "an AWS key",
    ),
    (
        re.compile(
            rb"(?i)aws_secret_access_key[\"']?\s*[:=]\s*[\"']?[a-z0-9/+]{40}(?![a-z0-9/+=])"
        ),
        "an AWS key",
    ),
    (
        re.compile(rb"(?<![A-Za-z0-9_-])sk-(?:ant-|proj-)[A-Za-z0-9_-]{32,}"),
        "a model provider's key",
    ),
    (re.compile(rb"(?<![A-Za-z0-9_])gh[pousr]_[A-Za-z0-9]{36}"), "a GitHub token"),
    (re.compile(rb"(?<![A-Za-z0-9_])xox[abprs]-[A-Za-z0-9-]{20,}"), "a Slack token"),
    (re.compile(rb"(?<![A-Za-z0-9_-])AIza[A-Za-z0-9_-]{35}"), "a Google key"),
)
_MOST_NAMED = 10


def package_files(
    folder: Path, *, allow: Collection[str] = (), leave_out: Path | None = None
) -> list[str]:
    """List the files of a folder to pack: sorted relative paths with slashes.

    Args:
        folder: Has configuration and code.
        allow: Files that are packed although they look like secrets.
        leave_out: A file that is not packed: the package being built.

    Raises:
        ConfigError: There is no file to pack, a file looks like a secret, a link leads out of the
            folder, or an allowed file is missing.
    """
    for name in allow:
        if not (folder / name).is_file():
            raise ConfigError(f"--allow {name}: there is no such file in {folder}")
    allowed = {Path(name).as_posix() for name in allow}
    found: list[str] = []
    secrets: list[str] = []
    for path, packed in _walk(folder, folder, *_patterns(folder), left_out=False):
        if leave_out is not None and path.resolve() == leave_out.resolve():
            continue
        name = path.relative_to(folder).as_posix()
        if name not in allowed and (reason := _secret(path, name, packed=packed)):
            secrets.append(f"{name} ({reason})")
        elif packed or name in allowed:
            found.append(name)
    if secrets:
        named = ", ".join(secrets[:_MOST_NAMED]) + (" ..." if len(secrets) > _MOST_NAMED else "")
        raise ConfigError(
            f"{folder}: these look like secrets: {named}; exclude them in {IGNORE_FILE}, or pack "
            "them anyway with --allow FILE"
        )
    if missing := allowed - set(found):
        raise ConfigError(f"--allow: {IGNORE_FILE} leaves out {', '.join(sorted(missing))}")
    if not found:
        raise ConfigError(f"{folder} has nothing to pack: neither configuration nor code")
    return sorted(found)


def _patterns(folder: Path) -> tuple[IgnorePatterns, IgnorePatterns]:
    """All patterns, and those of the user's ignore file alone."""
    try:
        lines = (folder / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder / IGNORE_FILE}: cannot be read: {error}") from error
    return parse_ignore_patterns([*_NOT_CODE, *lines]), parse_ignore_patterns(lines)


def _walk(
    top: Path, folder: Path, ignored: IgnorePatterns, own: IgnorePatterns, *, left_out: bool
) -> Iterator[tuple[Path, bool]]:
    """Iterate over files, and whether each is packed; skip those that the user ignores.

    Raises:
        ConfigError: A link leads to a folder, or out of this one.
    """
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        path = Path(entry.path)
        name = path.relative_to(top).as_posix()
        is_folder = entry.is_dir()
        if own.covers(name, folder=is_folder):
            continue
        out = left_out or ignored.covers(name, folder=is_folder)
        if entry.is_symlink():
            target = path.resolve()
            if not out and (is_folder or not target.is_relative_to(top.resolve())):
                raise ConfigError(f"{path} is a link to {target}: only files in {top} are packed")
            if is_folder or out:
                continue
        if is_folder:
            if entry.name not in _SKIPPED_FOLDERS:
                yield from _walk(top, path, ignored, own, left_out=out)
        elif entry.is_file():
            yield path, not out


def _secret(path: Path, name: str, *, packed: bool) -> str:
    """Why the file looks like a secret; "" if it does not."""
    parts = name.split("/")
    if _SECRET_FOLDERS.intersection(parts[:-1]):
        return "by its folder"
    lower = parts[-1].lower()
    public = any(fnmatchcase(lower, each) for each in _NOT_SECRET_NAMES)
    if not public and any(fnmatchcase(lower, each) for each in _SECRET_NAMES):
        return "by its name"
    if not packed:
        return ""
    content = path.read_bytes()
    for pattern, whose in _CONTENTS:
        if pattern.search(content):
            return f"has {whose}"
    return ""
