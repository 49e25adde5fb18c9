"""Shared configuration files of AWS's tools: ~/.aws/credentials and ~/.aws/config.

https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from seawall.aws import Credentials, CredentialsUnavailable

__all__ = ["ProfileSource", "Profiles", "load_profile"]

_MAX_BYTES = 1 << 20
_UNSUPPORTED = {
    "source_profile": "role assumption",
    "credential_source": "role assumption",
    "sso_session": "single sign-on",
    "sso_start_url": "single sign-on",
    "login_session": "console sign-in",
    "credential_process": "credential processes",
}


class Profiles:
    """Paths of the shared files, and name of the profile to use.

    Both from the environment: AWS_PROFILE (else `default`), AWS_SHARED_CREDENTIALS_FILE,
    AWS_CONFIG_FILE. Without HOME and without these there are no files.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.chosen = environment.get("AWS_PROFILE", "")
        self.name = self.chosen or "default"
        self.credentials_file = self._path(
            environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials"
        )
        self.config_file = self._path(environment, "AWS_CONFIG_FILE", "config")

    @staticmethod
    def _path(environment: Mapping[str, str], variable: str, name: str) -> Path | None:
        home = environment.get("HOME", "") or environment.get("USERPROFILE", "")
        path = environment.get(variable, "")
        if path.startswith("~/") and home:
            return Path(home, path[2:])
        if path:
            return Path(path)
        return Path(home, ".aws", name) if home else None


def load_profile(profiles: Profiles) -> dict[str, str] | None:
    """Return the settings of the profile; None if no file has it. Blocks: reads files.

    Where both files have a setting, that of the credentials file is used.

    Raises:
        CredentialsUnavailable: A file cannot be read.
    """
    name = profiles.name
    # In the config file every profile but the default is headed [profile NAME].
    headings = ["profile default", "default"] if name == "default" else [f"profile {name}"]
    found = _read(profiles.config_file, headings)
    secret = _read(profiles.credentials_file, [name])
    if found is None and secret is None:
        return None
    return (found or {}) | (secret or {})


class ProfileSource:
    """Keys in the profile.

    Profiles with another source of credentials than keys or a web identity are refused, because
    ignoring it would use another identity than the user configured.
    """

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    async def fetch(self, *, deadline: float) -> Credentials | None:  # noqa: ARG002 - the port's
        """See `CredentialSource.fetch`."""
        found = await asyncio.to_thread(load_profile, self._profiles)
        name = self._profiles.name
        if found is None:
            if self._profiles.chosen:
                raise CredentialsUnavailable(f'profile "{name}" not found (AWS_PROFILE)')
            return None
        if access_key := found.get("aws_access_key_id", ""):
            secret_key = found.get("aws_secret_access_key", "")
            if not secret_key:
                raise CredentialsUnavailable(f'profile "{name}": aws_secret_access_key is missing')
            return Credentials(access_key, secret_key, found.get("aws_session_token", ""))
        for setting, what in _UNSUPPORTED.items():
            if setting in found:
                raise CredentialsUnavailable(
                    f'profile "{name}": {setting}: {what} is not supported; use keys in the '
                    "profile or the environment, a container endpoint, a web identity, or the "
                    "role of the instance"
                )
        return None


def _read(path: Path | None, headings: list[str]) -> dict[str, str] | None:
    import configparser  # noqa: PLC0415 - only where there is a file to read

    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsUnavailable(f"{path}: {type(error).__name__}") from None
    if len(text) > _MAX_BYTES:
        raise CredentialsUnavailable(f"{path} exceeds {_MAX_BYTES} bytes")
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # `from None`: the parser's message quotes the line, which may contain a secret.
        line = getattr(error, "lineno", None) or (getattr(error, "errors", None) or [(0,)])[0][0]
        raise CredentialsUnavailable(f"{path}:{line}: not a file of profiles") from None
    for heading in headings:
        if parser.has_section(heading):
            return dict(parser.items(heading))
    return None
