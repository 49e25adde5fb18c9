"""Certificates made on the fly: an authority, and what is wrong with certificates in practice."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

__all__ = ["FAULTS", "Authority"]


class Authority:
    """A certificate authority; `file` is what clients trust."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def server(
        self,
        *names: str,
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
        through: bool = False,
    ) -> ssl.SSLContext:
        """The context of a server with a certificate of this authority.

        Args:
            names: Hosts and addresses that the certificate is for; by default those of tests.
            valid_from: Begin of its time.
            valid_until: End of its time.
            through: Whether an intermediate authority has signed it.
        """
        ca = self._ca.create_child_ca() if through else self._ca
        certificate = ca.issue_cert(
            *(names or ("localhost", "127.0.0.1")), not_before=valid_from, not_after=valid_until
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context


def _expired(authority: Authority, _: Path) -> ssl.SSLContext:
    past = datetime.now(UTC) - timedelta(days=30)
    return authority.server(valid_from=past, valid_until=past + timedelta(days=10))


def _not_yet_valid(authority: Authority, _: Path) -> ssl.SSLContext:
    future = datetime.now(UTC) + timedelta(days=10)
    return authority.server(valid_from=future, valid_until=future + timedelta(days=10))


def _of_another_host(authority: Authority, _: Path) -> ssl.SSLContext:
    return authority.server("models.example.com", "192.0.2.1")


def _of_another_authority(_: Authority, folder: Path) -> ssl.SSLContext:
    return Authority(folder, "other").server()


def _self_signed(_: Authority, folder: Path) -> ssl.SSLContext:
    """A server that presents the certificate of an authority of its own as its own."""
    ca = trustme.CA()
    file = folder / "self-signed.pem"
    ca.private_key_pem.write_to_path(file)
    ca.cert_pem.write_to_path(file, append=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


Make = Callable[[Authority, Path], ssl.SSLContext]
FAULTS: dict[str, tuple[Make, str]] = {
    "expired": (_expired, "certificate has expired"),
    "not yet valid": (_not_yet_valid, "not valid yet"),
    "another host": (_of_another_host, "is for another host"),
    "another authority": (_of_another_authority, "not trusted here: set ca_file"),
    "self-signed": (_self_signed, "signed by itself .* set ca_file"),
}
"""What makes a server with a wrong certificate, and what clients say about it."""
