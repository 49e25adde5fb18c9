"""Run by the SAM CLI's own Python: what AWS makes of templates, and what it says of them.

Each line of standard input is a template with its parameters, as `[TEMPLATE, PARAMETERS]` in JSON,
or the arguments of a command of the SAM CLI, as `{"command": […]}`. Each line of standard output is
the result in JSON: for a command its error, or "". Loading the translator takes two seconds.
"""

import json
import sys
from contextlib import redirect_stdout

from samcli.cli.main import cli  # type: ignore[import-not-found]
from samtranslator.translator.transform import transform  # type: ignore[import-not-found]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-not-found]


class _ManagedPolicies:
    def load(self) -> dict[str, str]:
        return {}


def _run(command: list[str]) -> str:
    try:
        with redirect_stdout(sys.stderr):
            cli.main(command, standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - each is a failure of the command
        return repr(error)
    return ""


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, dict):
            result = _run(asked["command"])
        else:
            template, parameters = asked
            result = transform(yaml_parse(template), parameters, _ManagedPolicies())
        print(json.dumps(result), flush=True)


main()
