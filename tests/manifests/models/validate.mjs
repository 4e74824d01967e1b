// Checks custom resources, a JSON list on stdin, against the models published as @kubernetes-models: their JSON schemas
// for types and required fields, and, because those let unknown fields pass, their TypeScript types for the rest.
// Prints a JSON list of problems.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import ts from "typescript";

const PACKAGES = {
  "external-secrets.io": "external-secrets",
  "karpenter.sh": "karpenter",
  "karpenter.k8s.aws": "karpenter",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

const resources = JSON.parse(readFileSync(0, "utf8"));
const problems = [];
const name = (resource) => `${resource.kind} ${resource.metadata.name}`;
let source = "";
const lines = [];
for (const resource of resources) {
  const [group, version] = resource.apiVersion.split("/");
  const module = `@kubernetes-models/${PACKAGES[group]}/${group}/${version}/${resource.kind}`;
  const Model = (await import(module))[resource.kind];
  try {
    new Model(resource).validate();
  } catch (error) {
    problems.push(`${name(resource)}: ${error.message}`);
  }
  const number = lines.length;
  source += `import type { I${resource.kind} as T${number} } from "${module}";\n`;
  lines.push(`export const r${number}: T${number} = ${JSON.stringify(resource)};`);
}
const first = lines.length;
source += lines.join("\n");

const root = dirname(createRequire(import.meta.url).resolve("typescript/package.json"));
const file = join(root, "..", "..", "resources.ts");
const options = {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  types: [],
  module: ts.ModuleKind.NodeNext,
  target: ts.ScriptTarget.ES2022,
};
const host = ts.createCompilerHost(options);
const { readFile, fileExists, getSourceFile } = host;
host.fileExists = (path) => path === file || fileExists(path);
host.readFile = (path) => (path === file ? source : readFile(path));
host.getSourceFile = (path, version, ...rest) =>
  path === file ? ts.createSourceFile(path, source, version) : getSourceFile.call(host, path, version, ...rest);
for (const diagnostic of ts.getPreEmitDiagnostics(ts.createProgram([file], options, host))) {
  const ours = diagnostic.file?.fileName === file;
  const line = ours ? diagnostic.file.getLineAndCharacterOfPosition(diagnostic.start).line : -1;
  const which = line >= first ? name(resources[line - first]) : "models";
  problems.push(`${which}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, " ")}`);
}
console.log(JSON.stringify(problems));
