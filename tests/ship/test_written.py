"""What `seawall ship` writes: whole, again, and never over what a person has edited."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seawall.cli.main import main
from seawall.errors import ConfigError
from seawall.ship.lambda_template import FunctionOptions, fill_template, function_sections
from seawall.ship.output import RECORD, write_files
from tests.properties import examples
from tests.ship.chart import only, rendered
from tests.ship.test_sized import plan, seawall
from tests.ship.test_templates import FUNCTIONS


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / "plan.json"
    path.write_text(plan("--daily", "20K", "--spike", "300@20s"))
    return path


def ship(planned: Path, out: Path, platform: str, *options: str) -> int:
    return main(["ship", platform, "--plan", str(planned), "--out", str(out), *options])


@pytest.mark.parametrize("platform", ["eks", "lambda"])
def test_an_edited_file_is_not_overwritten(
    planned: Path, tmp_path: Path, platform: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ship(planned, tmp_path, platform) == 0
    assert ship(planned, tmp_path, platform) == 0, "unedited, it is written again"
    name = "values.yaml" if platform == "eks" else "template.yaml"
    edited = (tmp_path / name).read_text() + "# mine\n"
    (tmp_path / name).write_text(edited)
    readme = (tmp_path / "README.md").read_bytes()
    assert ship(planned, tmp_path, platform, "--model-key", "A_KEY") == 2
    output = capsys.readouterr().err
    assert name in output
    assert "--force" in output
    assert (tmp_path / name).read_text() == edited
    assert (tmp_path / "README.md").read_bytes() == readme, "all of the files, or none"
    assert ship(planned, tmp_path, platform, "--force") == 0
    assert "# mine" not in (tmp_path / name).read_text()


def test_pods_read_the_keys_that_the_readme_creates(planned: Path, tmp_path: Path) -> None:
    keys = ("--model-key", "OPENAI_API_KEY", "--model-key", "ANTHROPIC_API_KEY")
    assert ship(planned, tmp_path, "eks", *keys) == 0
    values = yaml.safe_load((tmp_path / "values.yaml").read_text())
    (container,) = only(rendered(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "seawall-keys"}}]
    readme = (tmp_path / "README.md").read_text()
    assert "create secret generic seawall-keys" in readme
    assert "OPENAI_API_KEY=" in readme
    assert "ANTHROPIC_API_KEY=" in readme


CONTENT = st.binary(max_size=4)
FILES = st.dictionaries(st.sampled_from(["a", "b", "c/d"]), CONTENT, max_size=3)


@examples(short=40, long=1_000)
@given(first=FILES, second=FILES, edits=FILES)
def test_no_edit_of_the_user_is_lost(
    first: dict[str, bytes],
    second: dict[str, bytes],
    edits: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.mktemp("out")
    write_files(out, first)
    for name, content in edits.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    before = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != RECORD
    }
    own = {
        name
        for name, content in before.items()
        if content != first.get(name) and (name in second or name in first)
    }
    lost = {name for name in own if before[name] != second.get(name)}
    if lost:
        with pytest.raises(ConfigError, match="--force"):
            write_files(out, second)
        assert all((out / name).read_bytes() == content for name, content in before.items())
    else:
        write_files(out, second)
        assert all((out / name).read_bytes() == content for name, content in second.items())
        assert all((out / name).exists() == (name in second) for name in first.keys() - own)


@pytest.mark.parametrize("record", [b"[]", b"\xff", b'{"../x": "0", "/etc/passwd": "0"}', b"{"])
def test_an_unusable_record_removes_nothing(tmp_path: Path, record: bytes) -> None:
    outside = tmp_path / "x"
    outside.write_text("stays")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("stays")
    (out / RECORD).write_bytes(record)
    with pytest.raises(ConfigError, match="not written by it: a"):
        write_files(out, {"a": b"new"})
    assert outside.read_text() == "stays"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("stays")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(target)
    with pytest.raises(ConfigError):
        write_files(out, {"a": b"new"})
    assert target.read_text() == "stays"


ORDER = {
    "eks": ["cloudformation deploy", "docker push", "create secret", "helm upgrade"],
    "lambda": ["cloudformation deploy", "put-secret-value", "lambda build", "sam deploy"],
}


@pytest.mark.parametrize("platform", ORDER)
def test_the_readme_has_every_step_in_order(planned: Path, tmp_path: Path, platform: str) -> None:
    assert ship(planned, tmp_path, platform, "--model-key", "A_KEY") == 0
    readme = (tmp_path / "README.md").read_text()
    at = [readme.index(each) for each in ORDER[platform]]
    assert at == sorted(at)
    for block in readme.split("```sh\n")[1:]:  # what a shell can read, and files that are there
        words = shlex.split(block.partition("```")[0].replace("\\\n", " "), comments=True)
        for word in words:
            if word.endswith((".yaml", "./seawall")):
                assert (tmp_path / word).exists(), word
    assert "A_KEY" in readme


@pytest.mark.parametrize(
    ("platform", "options", "named"),
    [
        ("eks", ["--timezone", "UTC"], "--timezone"),
        ("eks", ["--crowd", "20:00"], "--crowd"),
        ("eks", ["--cluster", "x"], "--cluster"),
        ("lambda", ["--kind", "lambda", "--crowd", "20:00"], "--crowd"),
        ("lambda", ["--kind", "lambda", "--subnets", "a"], "--subnets"),
        ("lambda", ["--kind", "lambda-managed", "--crowd", "20:00"], "--crowd"),
    ],
)
def test_an_option_without_effect_is_named(
    planned: Path, tmp_path: Path, platform: str, options: list[str], named: str
) -> None:
    command = ["ship", platform, "--plan", str(planned), "--out", str(tmp_path), "--json"]
    notes = json.loads(seawall(*command, *options))["notes"]
    words = ("no effect", "creates no", "create no")
    assert [each for each in notes if named in each and any(word in each for word in words)]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--model-key", "not a name"],
        ["--model-key", "AWS_SECRET_ACCESS_KEY"],
        ["--model-key", "A", "--model-key", "A"],
        ["--shared-stack", "${evil}"],
    ],
)
def test_invalid_names_are_refused(planned: Path, tmp_path: Path, wrong: list[str]) -> None:
    assert ship(planned, tmp_path / "out", "lambda", *wrong) == 2
    assert not (tmp_path / "out").exists()


SIZED = {
    "template": {
        "Start": "on-demand",
        "MemoryMb": "1769",
        "Architecture": "arm64",
        "TimeoutSeconds": "90",
    },
    "managed": {
        "MemoryMb": "4096",
        "MemoryGiBPerVcpu": "4",
        "Architecture": "arm64",
        "TimeoutSeconds": "90",
        "InFlight": "64",
        "MinimumEnvironments": "3",
        "MaximumEnvironments": "30",
        "MaximumVcpus": "64",
        "TargetUtilization": "60",
        "Instances": "",
    },
}


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: path.stem)
def test_the_templates_have_the_default_sizes(path: Path) -> None:
    """So the files in deploy/lambda can be deployed as they are."""
    text = path.read_text()
    assert fill_template(text, function_sections(SIZED[path.stem], FunctionOptions())) == text
