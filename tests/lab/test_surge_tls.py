"""The driver and a server with TLS."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab.conftest import Site

Relay = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for `localhost`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "certificate.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


def relay_to(url: str) -> Relay:
    """A relay of bytes to the server and back."""
    host, _, port = url.removeprefix("http://").partition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_upstream = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, to_upstream), pump(upstream, writer))

    return relay


async def surge(site: Site, chain: Path, private: Path, *, trusted: bool) -> tuple[int, str]:
    """Exit status and output of the command, through a TLS relay."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, private)
    server = await asyncio.start_server(relay_to(site.url), "127.0.0.1", 0, ssl=context)
    environment = os.environ | {"SEAWALL_SURGE_TOKEN": site.issuer.token("ada")}
    if trusted:
        environment["SSL_CERT_FILE"] = str(chain)
    port = server.sockets[0].getsockname()[1]
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "seawall", "surge", f"https://localhost:{port}"),
            *("--at-once", "8", "--json"),
            stdout=subprocess.PIPE,
            env=environment,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 120)
    finally:
        server.close()
    return process.returncode or 0, out.decode()


async def test_a_server_with_tls_is_driven_and_read_back(site: Site, tmp_path: Path) -> None:
    status, out = await surge(site, *certificate(tmp_path), trusted=True)
    result = json.loads(out)
    assert (status, result["completed"], result["durability"]["found"]) == (0, 8, 8), out


async def test_an_untrusted_certificate_is_rejected(site: Site, tmp_path: Path) -> None:
    status, out = await surge(site, *certificate(tmp_path), trusted=False)
    assert status == 1
    assert json.loads(out)["completed"] == 0
    assert "CERTIFICATE_VERIFY_FAILED" in out
