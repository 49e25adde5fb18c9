"""Run by the SAM CLI's own Python: a template on standard input, what AWS makes of it as JSON."""

import json
import sys

from samtranslator.translator.transform import transform  # type: ignore[import-not-found]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-not-found]


class _ManagedPolicies:
    def load(self) -> dict[str, str]:
        return {}


def main() -> None:
    template = yaml_parse(sys.stdin.read())
    parameters = json.loads(sys.argv[1])
    print(json.dumps(transform(template, parameters, _ManagedPolicies())))


main()
