"""`seawall tools login`: sign in to an MCP server with a browser."""

import argparse
import sys
import threading
import webbrowser
from pathlib import Path

from seawall.config import load_settings
from seawall.errors import ConfigError, SeawallError, did_you_mean
from seawall.identity.outbound.open import open_login
from seawall.identity.outbound.port import CredentialsUnavailable
from seawall.identity.outbound.settings import AuthSettings, McpAuth, resolve_files
from seawall.tools.settings import McpSettings

__all__ = ["log_in"]


async def log_in(arguments: argparse.Namespace) -> int:
    """Run the command."""
    settings = load_settings(arguments.config)
    source = settings.sources.get(arguments.source)
    if source is None:
        meant = did_you_mean(arguments.source, settings.sources)
        known = ", ".join(sorted(settings.sources)) or "none"
        raise ConfigError(
            f"there is no source of tools {arguments.source!r}{meant}; known: {known}"
        )
    key = f"tools.{arguments.source}"
    auth: AuthSettings = source.auth
    if arguments.tenant:
        key = f"tenants.{arguments.tenant}.{key}"
        tables = settings.tenants.get(arguments.tenant)
        if tables is None or arguments.source not in tables.tools:
            raise ConfigError(f"there is no table [{key}.auth]")
        auth = tables.tools[arguments.source].auth
    if not isinstance(source, McpSettings) or not source.mcp or not isinstance(auth, McpAuth):
        raise ConfigError(f'{key}: is no MCP server with auth of kind "mcp"')
    resolved = resolve_files(auth, lambda _, value: str(Path(settings.folder, value)))
    assert isinstance(resolved, McpAuth)  # noqa: S101 - it stays what it is
    try:
        await open_login(
            resolved,
            source.mcp,
            key=f"{key}.auth",
            ca_file=source.tls.ca_file and str(Path(settings.folder, source.tls.ca_file)),
            show=lambda url: _show(url, browser=not arguments.no_browser),
        )
    except CredentialsUnavailable as error:
        raise SeawallError(f"{key}.auth: {error.detail}") from None
    print(f"{resolved.login_file}: signed in to {source.mcp}")
    return 0


def _show(url: str, *, browser: bool) -> None:
    print(f"Open this address in a browser of this machine:\n\n  {url}\n", file=sys.stderr)
    if browser:  # in a thread: some browsers are waited for
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
