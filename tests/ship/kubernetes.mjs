// Validates custom resources with the validators that @kubernetes-models/* have compiled from the
// projects' own definitions. Objects come as a JSON list on standard input; faults go out as one.
import { existsSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const packages = `${process.argv[2]}/node_modules/@kubernetes-models`;
const homes = {
  "external-secrets.io": "external-secrets",
  "gateway.networking.k8s.io": "gateway-api",
  "karpenter.k8s.aws": "karpenter",
  "karpenter.sh": "karpenter",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};
const faults = [];
for (const object of JSON.parse(readFileSync(0))) {
  // The validators know only the version before; what is used here is the same in both.
  const before = { "external-secrets.io/v1": "external-secrets.io/v1beta1" };
  const version = before[object.apiVersion] ?? object.apiVersion;
  const [group, name] = version.split("/");
  const folder = `${packages}/${homes[group]}/${group}/${name}`;
  const file = ["index.mjs", "index.js"].map((each) => `${folder}/${each}`).find(existsSync);
  const Kind = (await import(pathToFileURL(file)))[object.kind];
  try {
    new Kind({ ...object, apiVersion: version }).validate();
  } catch (error) {
    faults.push(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
process.stdout.write(JSON.stringify(faults));
