"""Run by the SAM CLI's own Python: what AWS makes of templates.

Each line of standard input is a template with its parameters, as `[TEMPLATE, PARAMETERS]` in JSON;
each line of standard output is the result in JSON. Loading the translator takes two seconds.
"""

import json
import sys

from samtranslator.translator.transform import transform  # type: ignore[import-not-found]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-not-found]


class _ManagedPolicies:
    def load(self) -> dict[str, str]:
        return {}


def main() -> None:
    for line in sys.stdin:
        template, parameters = json.loads(line)
        result = transform(yaml_parse(template), parameters, _ManagedPolicies())
        print(json.dumps(result), flush=True)


main()
