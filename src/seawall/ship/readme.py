"""The README of a deployment: every step to a running service, in order."""

from collections.abc import Sequence

from seawall.ship.lambda_template import CODE, FunctionOptions

__all__ = ["KEYS", "eks_readme", "image_readme", "lambda_readme"]

KEYS = "seawall-keys"
"""Name of the Kubernetes secret with the keys of the models' providers."""
_BASE = "python:3.13-slim-bookworm"


def eks_readme(
    *, region: str, cluster: str, model_keys: Sequence[str], notes: Sequence[str]
) -> bytes:
    """The steps on EKS.

    Args:
        region: AWS region.
        cluster: Name of the cluster; empty if it was not given.
        model_keys: Variables with the keys of the models' providers.
        notes: For the user.
    """
    literals = [f"    --from-literal={name}=... \\" for name in model_keys]
    secrets = [
        "The pods read the keys of the models' providers from a secret of their namespace.",
        "",
        *_code(
            f"kubectl create namespace seawall\nkubectl -n seawall create secret generic {KEYS} \\",
            *literals,
            "    --dry-run=client -o yaml | kubectl apply -f -",
        ),
    ]
    if not model_keys:
        secrets = [
            "`seawall ship eks --model-key NAME` names the variables with the keys of the models'",
            "providers; without one, no secret is read. Bedrock needs none: its models are",
            "parameters of the shared stack.",
        ]
    steps = [
        ("The shared stack", _shared(region, cluster or "YOUR-CLUSTER")),
        ("Registry and image", _image("image")),
        ("Secrets", secrets),
        (
            "The chart",
            _code(
                "helm upgrade --install seawall ./seawall -f values.yaml --namespace seawall \\",
                "    --create-namespace --set image.repository=$REGISTRY/seawall \\",
                "    --set image.tag=1",
            ),
        ),
        (
            "Check that it runs",
            _code(
                "kubectl -n seawall rollout status deployment/seawall",
                "kubectl -n seawall port-forward service/seawall 8080:80",
                "curl -s http://127.0.0.1:8080/readyz",
            ),
        ),
    ]
    return _page("Seawall on EKS", steps, notes)


def lambda_readme(
    *,
    region: str,
    options: FunctionOptions,
    architecture: str,
    missing: Sequence[str],
    notes: Sequence[str],
) -> bytes:
    """The steps on Lambda.

    Args:
        region: AWS region.
        options: Those of the template.
        architecture: Of the function.
        missing: Parameters of the template that the user still has to give.
        notes: For the user.
    """
    members = ", ".join(f'"{name}": "..."' for name in options.model_keys)
    secrets = [
        "Each key is a member of the shared secret, and becomes the variable of its name when a",
        "version is published. After you change a key, publish a version: change `Description`",
        "in `template.yaml` and deploy.",
        "",
        *_code(
            f"SECRET=$(aws cloudformation describe-stacks --stack-name {options.shared_stack} \\",
            f"    --region {region} --output text \\",
            "    --query \"Stacks[0].Outputs[?OutputKey=='ModelSecret'].OutputValue\")",
            f'aws secretsmanager put-secret-value --secret-id "$SECRET" --region {region} \\',
            f"    --secret-string '{{{members}}}'",
        ),
    ]
    if not options.model_keys:
        secrets = [
            "`seawall ship lambda --model-key NAME` names the members of the shared secret with",
            "the keys of the models' providers; without one, none is read. Bedrock needs none: its",
            "models are parameters of the shared stack.",
        ]
    deploy = "sam deploy"
    if missing:
        deploy += " --parameter-overrides " + " ".join(f"{each}=ID,ID" for each in sorted(missing))
    steps = [
        ("The shared stack", _shared(region, "", options.shared_stack)),
        ("Secrets", secrets),
        (
            "The package",
            [
                "From the folder with the configuration and the code of its tools. A function",
                "needs no registry and no image.",
                "",
                *_code(
                    f"seawall lambda build YOUR-FOLDER --out {CODE} \\",
                    f"    --architecture {architecture} --python 3.13",
                ),
            ],
        ),
        (
            "The function",
            [
                "A change of the package or of `template.yaml` publishes a new version, and the",
                "alias `live` moves to it.",
                "",
                *_code(deploy),
            ],
        ),
        (
            "Check that it runs",
            _code(
                "URL=$(aws cloudformation describe-stacks --stack-name seawall \\",
                f"    --region {region} --output text \\",
                "    --query \"Stacks[0].Outputs[?OutputKey=='Url'].OutputValue\")",
                'curl -s "${URL}readyz"',
            ),
        ),
    ]
    return _page("Seawall on Lambda", steps, notes)


def image_readme() -> bytes:
    """The steps to an image."""
    return _page("The image of Seawall", [("Registry and image", _image("."))], ())


def _shared(region: str, cluster: str, stack: str = "seawall-shared") -> list[str]:
    parameters = f" ClusterName={cluster}" if cluster else ""
    return [
        "The session table, its access policy, the secret and the topic for alarms. For models of",
        "Bedrock, add `BedrockModels=ARN,ARN`.",
        "",
        *_code(
            f"aws cloudformation deploy --stack-name {stack} --template-file shared.yaml \\",
            f"    --region {region} --capabilities CAPABILITY_IAM \\",
            f"    --parameter-overrides AlarmEmail=YOU@EXAMPLE.COM{parameters}",
        ),
    ]


def _image(folder: str) -> list[str]:
    return [
        "The base image is pinned by its digest, and packages by their hashes, so that the image",
        "is reproducible. `YOUR-FOLDER` has `seawall.toml` and the code of its tools.",
        "",
        *_code(
            "REGISTRY=ACCOUNT.dkr.ecr.REGION.amazonaws.com",
            "aws ecr create-repository --repository-name seawall",
            "aws ecr get-login-password | docker login --username AWS --password-stdin $REGISTRY",
            f"DIGEST=$(docker buildx imagetools inspect {_BASE} \\",
            "    --format '{{.Manifest.Digest}}')",
            f"docker build {folder} --build-arg BASE={_BASE}@$DIGEST \\",
            "    --build-context app=YOUR-FOLDER --tag $REGISTRY/seawall:1",
            "docker push $REGISTRY/seawall:1",
        ),
    ]


def _code(*lines: str) -> list[str]:
    return ["```sh", *lines, "```"]


def _page(title: str, steps: Sequence[tuple[str, Sequence[str]]], notes: Sequence[str]) -> bytes:
    lines = [f"# {title}", "", "Written by `seawall ship`. The steps, in order:", ""]
    for number, (name, text) in enumerate(steps, 1):
        lines += [f"## {number}. {name}", "", *text, ""]
    if notes:
        lines += ["## Notes", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines).encode()
