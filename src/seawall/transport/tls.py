"""TLS of clients: the context of a setting `ca_file`, and why there is no connection."""

import ssl

from seawall.errors import ConfigError

__all__ = ["handshake_fault", "tls_context"]

_SET = "set ca_file to the certificate of its authority"
_NO_ISSUER = f"its certificate is signed by an authority that is not trusted here: {_SET}"
_SELF_SIGNED = f"its certificate is signed by itself or by an authority not trusted here: {_SET}"
_OTHER_HOST = "its certificate is for another host"
_FAULTS = {  # X509_V_ERR_… of OpenSSL's x509_vfy.h
    2: _NO_ISSUER,
    9: "its certificate is not valid yet (or this clock is wrong)",
    10: "its certificate has expired: it has to be renewed there (or this clock is wrong)",
    18: _SELF_SIGNED,
    19: _SELF_SIGNED,
    20: _NO_ISSUER,
    21: _NO_ISSUER,
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}
_OLD_PROTOCOL = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"})


def tls_context(ca_file: str = "", *, key: str = "ca_file") -> ssl.SSLContext:
    """A context that verifies servers: TLS 1.2 or later, certificate chain, host name.

    Args:
        ca_file: PEM file with the only authorities that are trusted; empty for the system's, or
            those of SSL_CERT_FILE and SSL_CERT_DIR.
        key: The key of the configuration, for errors.

    Raises:
        ConfigError: The file cannot be read, or has no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError:
        raise ConfigError(f"{key}: {ca_file}: has no certificate in PEM format") from None
    except OSError as error:
        raise ConfigError(f"{key}: {ca_file}: cannot be read: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def handshake_fault(error: ssl.SSLError) -> str:
    """Why there is no TLS connection to a server, and what to do about it.

    Args:
        error: Of the handshake.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        fault = _FAULTS.get(error.verify_code, "its certificate is not accepted")
        return f"{fault} ({said})"
    if error.reason in _OLD_PROTOCOL:
        return "it does not speak TLS 1.2 or later"
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS at this port"
    return f"no TLS connection: {error.reason or error}"
