"""What of a folder is packed: code and configuration; nothing that is ignored, and no secret."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seawall.cli.lambda_build import _listed
from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.ship.ignore_file import parse_ignore_patterns
from seawall.ship.lambda_zip import Package
from seawall.ship.package_files import package_files


def make(folder: Path, *names: str, content: str = "x") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_code_and_data_are_packed(tmp_path: Path) -> None:
    make(tmp_path, "seawall.toml", "own.py", "tools/a.py", "data/prices.csv", "sub/dist.py")
    make(
        tmp_path,
        ".git/config",
        ".hidden",
        "a.db",
        "a.db-wal",
        "old.zip",
        "modules.cpython-313.archive",
        "dist/a.whl",
        "b.lock",
    )
    make(tmp_path, "__pycache__/own.cpython-311.pyc", "node_modules/a/index.js", "venv/bin/a")
    assert package_files(tmp_path) == [
        "data/prices.csv", "own.py", "seawall.toml", "sub/dist.py", "tools/a.py",
    ]  # fmt: skip


def test_an_ignore_file(tmp_path: Path) -> None:
    make(tmp_path, "seawall.toml", "notes.md", "a/notes.md", "a/keep.md", "dist/needed.js", "a.env")
    (tmp_path / ".seawallignore").write_text("# ours\n*.md\n!keep.md\n!dist/\n*.env\n")
    assert package_files(tmp_path) == ["a/keep.md", "dist/needed.js", "seawall.toml"]


SECRETS = [
    ".env", ".env.production", "prod.env", "server.pem", "tls.KEY", "store.p12", "id_rsa",
    "keys/id_ed25519", "credentials", ".aws/credentials", ".aws/config", ".ssh/known_hosts",
    ".netrc", ".npmrc", "secrets.yaml", "my-service-account.json", "terraform.tfstate",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_by_its_name_is_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, "seawall.toml", name)
    with pytest.raises(ConfigError, match="look like secrets") as refused:
        package_files(tmp_path)
    assert name in str(refused.value)
    assert "--allow" in str(refused.value)
    assert package_files(tmp_path, allow=[name]) == sorted([name, "seawall.toml"])
    (tmp_path / ".seawallignore").write_text(name.partition("/")[0] + "\n")
    assert package_files(tmp_path) == ["seawall.toml"]


CONTENTS = [
    "-----BEGIN PRIVATE KEY-----\nMIIEvQ",
    "x = '''-----BEGIN OPENSSH PRIVATE KEY-----'''",
    "-----BEGIN RSA PRIVATE KEY-----",
    '{"private_key": "-----BEGIN PRIVATE KEY-----\\nMIIE"}',
    "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "key = 'AKIA" + "Q" * 16 + "'",
    "ASIA" + "B2" * 8,
    "aws_secret_access_key = " + "a/+B" * 10,
    '{"aws_secret_access_key": "' + "a/+B" * 10 + '"}',
    "OPENAI = 'sk-proj-" + "a1" * 30 + "'",
    "sk-ant-api03-" + "a-" * 40,
    "ghp_" + "a1" * 18,
    "xoxb-" + "1" * 24,
]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_a_secret_by_its_content_is_refused(tmp_path: Path, content: str) -> None:
    make(tmp_path, "seawall.toml")
    make(tmp_path, "own.py", content=f"\x00before\n{content}\nafter")
    with pytest.raises(ConfigError, match=r"own\.py \(has "):
        package_files(tmp_path)
    assert "own.py" in package_files(tmp_path, allow=["own.py"])


@pytest.mark.parametrize(
    "content",
    [
        "-----BEGIN CERTIFICATE-----\nMIID",
        "-----BEGIN PUBLIC KEY-----",
        "AKIAIOSFODNN7EXAMPLE",
        "skip-the-line, task-proj-management, sk-proj-short",
        "the environment's AKIA prefix",
    ],
)
def test_files_that_are_not_secret_are_packed(tmp_path: Path, content: str) -> None:
    make(tmp_path, "own.py", ".env.example", "id_rsa.pub", "keys.py", "secrets.py", content=content)
    assert package_files(tmp_path) == ["id_rsa.pub", "keys.py", "own.py", "secrets.py"]


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    make(tmp_path, "outside/passwords", "folder/seawall.toml")
    folder = tmp_path / "folder"
    (folder / "inside").symlink_to("seawall.toml")
    assert package_files(folder) == ["inside", "seawall.toml"]
    for target in ("../outside/passwords", "../outside", "."):
        (folder / "link").symlink_to(target)
        with pytest.raises(ConfigError, match="is a link to"):
            package_files(folder)
        (folder / "link").unlink()
    os.mkfifo(folder / "pipe")  # nothing is waited for
    assert package_files(folder) == ["inside", "seawall.toml"]


def test_nothing_to_pack_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lambda", "build", str(tmp_path), "--out", str(tmp_path / "out.zip")]) == 2
    assert "nothing to pack" in capsys.readouterr().err
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize("name", ["missing", "../outside", "ignored"])
def test_an_allowed_file_must_exist(tmp_path: Path, name: str) -> None:
    make(tmp_path, "outside")
    folder = tmp_path / "folder"
    make(folder, "seawall.toml", "ignored")
    (folder / ".seawallignore").write_text("ignored")
    with pytest.raises(ConfigError, match="--allow"):
        package_files(folder, allow=[name])


def test_the_content_of_a_package_is_listed() -> None:
    own = {f"f{number:03}.py": 10 for number in range(250)}
    packages = {"numpy": 30_000_000, "seawall": 5_000_000, "six.py": 30}
    built = Package("f.zip", 1, sum(own.values()) + 35_000_030, 300, True, own, packages)
    lines = _listed(built).splitlines()
    sizes = [int(line.split()[0].replace(",", "")) for line in lines]
    assert sum(sizes) == built.unpacked_bytes
    assert lines[0].split() == ["10", "f000.py"]
    assert "50 more files" in lines[200]
    assert lines[201].split() == ["30,000,000", "package", "numpy"]


NAMES = st.sampled_from(["a", "b", "ab", "a.py", "b.md", "[x]", "a b", ".h"])
PATH = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PIECE = st.sampled_from(
    ["a", "b", "*", "?", "**", "*.py", "[ab]", "[!a]", "[a-b]", "\\*", "a*", "**b", "[", ".*"]
)
PATTERN = st.builds(
    lambda negated, rooted, pieces, folder: negated + rooted + "/".join(pieces) + folder,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(PIECE, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "  "]),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=st.lists(PATTERN, max_size=4), paths=st.lists(PATH, min_size=1, max_size=12))
def test_patterns_mean_the_same_as_in_git(
    repository: Path, lines: list[str], paths: list[str]
) -> None:
    (repository / ".gitignore").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["git", "-C", str(repository), "-c", "core.quotePath=false", "check-ignore", "--no-index",
         "-z", "--stdin"],
        input="\0".join(paths).encode(),
        capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    ignored = set(done.stdout.decode().split("\0"))
    patterns = parse_ignore_patterns(lines)
    for path in paths:
        parts = path.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        covered = any(patterns.covers(each, folder=True) for each in above)
        covered = covered or patterns.covers(path, folder=False)
        assert covered == (path in ignored), (lines, path)
