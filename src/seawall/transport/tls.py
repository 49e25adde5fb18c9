"""TLS of clients: the context of a setting `ca_file`, and what is wrong with a certificate."""

import ssl

from seawall.errors import ConfigError

__all__ = ["certificate_fault", "tls_context"]

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_NOT_YET_VALID = 9
_EXPIRED = 10
_HOSTNAME_MISMATCH = 62
_ADDRESS_MISMATCH = 64
_SELF_SIGNED = frozenset({18, 19})
_NO_ISSUER = frozenset({2, 20, 21})
_SET = "set ca_file to the certificate of its authority"


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


def certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    """Which check a server's certificate did not pass, and what to do about it.

    Args:
        error: Of the handshake.
    """
    code = error.verify_code
    if code == _EXPIRED:
        return "its certificate has expired: it has to be renewed there (or this clock is wrong)"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet (or this clock is wrong)"
    if code in (_HOSTNAME_MISMATCH, _ADDRESS_MISMATCH):
        return f"its certificate is for another host: {error.verify_message.rstrip('.')}"
    if code in _SELF_SIGNED:
        return f"its certificate is signed by itself or by an authority not trusted here: {_SET}"
    if code in _NO_ISSUER:
        return f"its certificate is signed by an authority that is not trusted here: {_SET}"
    return f"its certificate is not accepted: {error.verify_message}"
