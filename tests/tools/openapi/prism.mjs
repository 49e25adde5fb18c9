// Plays the services of documents, each at a port of its own; prints the ports as one line of JSON.
// As the command `prism mock` does it; a process of its own for each would load Prism anew.
import { createRequire } from "node:module";

const [modules, ...documents] = process.argv.slice(2);
const require = createRequire(modules);
const { getHttpOperationsFromSpec } = require("@stoplight/prism-http");
const { createServer } = require("@stoplight/prism-http-server");
const { createLogger } = require("@stoplight/prism-core");

const config = {
  checkSecurity: true,
  errors: false,
  isProxy: false,
  mock: { dynamic: false },
  validateRequest: true,
  validateResponse: true,
};
const logger = createLogger("Prism", { enabled: false });
const ports = {};
for (const document of documents) {
  const operations = await getHttpOperationsFromSpec(document);
  const server = createServer(operations, { components: { logger }, config, cors: true });
  ports[document] = Number(new URL(await server.listen(0, "127.0.0.1")).port);
}
console.log(JSON.stringify(ports));
