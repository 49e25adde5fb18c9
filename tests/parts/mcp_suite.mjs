// Runs the programs of MCP's conformance suites, one after the other, in one process: loading what
// they need takes longer than most scenarios.
//
// Each line of the input is `{"program": PATH, "arguments": [...], "folder": PATH}`; it is answered
// by a line `{"status": NUMBER, "output": TEXT}`.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const answer = process.stdout.write.bind(process.stdout);
const ENDED = new Error("the program has ended");
process.on("unhandledRejection", (reason) => {
  if (reason !== ENDED) throw reason;
});

function run({ program, arguments: given, folder }, number) {
  return new Promise((resolve, reject) => {
    let output = "";
    process.stdout.write = process.stderr.write = (text) => {
      output += text;
      return true;
    };
    process.exit = (status) => {
      resolve({ status, output });
      throw ENDED;
    };
    process.chdir(folder);
    process.argv = [process.execPath, program, ...given];
    // Each address is evaluated anew, as in a process of its own; what it imports is not.
    import(`${pathToFileURL(program)}?${number}`).catch(reject);
  });
}

let number = 0;
for await (const line of createInterface({ input: process.stdin })) {
  answer(`${JSON.stringify(await run(JSON.parse(line), (number += 1)))}\n`);
}
