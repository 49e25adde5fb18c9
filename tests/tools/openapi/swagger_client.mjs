// Builds the requests of a document with swagger-client: lines of JSON in, lines of JSON out.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.argv[2] + "/"));
const { buildRequest } = require("swagger-client").default ?? require("swagger-client");

for await (const line of createInterface({ input: process.stdin })) {
  const { spec, parameters } = JSON.parse(line);
  const request = buildRequest({ spec, operationId: "op", parameters });
  console.log(JSON.stringify({ url: request.url, headers: request.headers, body: request.body ?? "" }));
}
