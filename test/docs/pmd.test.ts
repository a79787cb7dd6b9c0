// docs/pmd.md: its code is right TypeScript, its program forwards, and both languages have the same code.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import ts from 'typescript';
import { packageRoot } from '../../src/apps/package-info.js';
import { optionsUsage } from '../../src/apps/testpmd/options.js';

const root = packageRoot();
const build = path.join(root, '.build');
mkdirSync(build, { recursive: true });
// Inside the package, so that it finds itself by its name.
const folder = mkdtempSync(path.join(build, 'docs-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const read = (file: string) => readFileSync(path.join(root, 'docs', file), 'utf8');
const blocks = (text: string, kind: string): string[] =>
  [...text.matchAll(/^```([^\n]*)\n([\s\S]*?)^```$/gm)].filter(([, info]) => info === kind).map(([, , code]) => code!);

const guide = read('pmd.md');
const [program] = blocks(guide, 'ts program') as [string];
const pieces = blocks(guide, 'ts');

/** A piece of code as a module: what it imports, and the rest in a function that has what the text says it has. */
function moduleOf(piece: string): string {
  const imports = [...piece.matchAll(/^import .*;$/gm)].map(([line]) => line);
  const rest = piece.replaceAll(/^import .*;\n/gm, '');
  const types = "import type { Eal as E, LcoreThread as L, Mempool as M, Port as P } from 'netvsc';";
  return `${types}\n${imports.join('\n')}\nexport async function piece(eal: E, port: P, pool: M, burst: number, lcore: L) {\n${rest}\nvoid [eal, port, pool, burst, lcore];\n}\n`;
}

const options: ts.CompilerOptions = {
  ...{
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
  },
  ...{ strict: true, types: ['node'], noEmitOnError: true, outDir: folder, rootDir: folder },
};

test('the code of the guide compiles against the public entry', () => {
  const files = [program, ...pieces.map(moduleOf)].map((code, i) => {
    const file = path.join(folder, `piece${i}.ts`);
    writeFileSync(file, code);
    return file;
  });
  assert.ok(pieces.length >= 7);
  const compiled = ts.createProgram(files, options);
  const problems = [...ts.getPreEmitDiagnostics(compiled), ...compiled.emit().diagnostics].map((problem) => {
    const text = ts.flattenDiagnosticMessageText(problem.messageText, '\n');
    return `${problem.file?.fileName}:${problem.start}: ${text}`;
  });
  assert.deepEqual(problems, []);
});

test('its program forwards', async (t) => {
  const words = ['--vdev', 'net_null0', '--vdev', 'net_null1'];
  const child = spawn(process.execPath, [path.join(folder, 'piece0.js'), ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  let out = '';
  let interrupted = false;
  child.stdout.on('data', (chunk) => {
    out += chunk;
    if (interrupted || !/port 1: net_null/.test(out)) return;
    interrupted = true;
    setTimeout(() => child.kill('SIGINT'), 300);
  });
  const [code] = await once(child, 'close');
  assert.equal(code, 0, out);
  assert.match(out, /port 0: net_null 02:6e:[\s\S]*port 0: [1-9]\d* received\nport 1: [1-9]\d* received\n/);
});

test('both languages have the same code, commands and links', () => {
  const chinese = read('pmd.zh-CN.md');
  for (const kind of ['ts program', 'ts', '']) assert.deepEqual(blocks(chinese, kind), blocks(guide, kind));
  const rows = (text: string) => [...text.matchAll(/^\| `([^|]*)` \|/gm)].map(([, name]) => name);
  assert.deepEqual(rows(chinese), rows(guide));
  assert.equal(chinese.split('\n## ').length, guide.split('\n## ').length);
});

test('what the guide says of testpmd is there', () => {
  for (const option of ['nb-cores', 'stats-period', 'display-xstats', 'tx-first', 'cmdline-file', 'rx-interrupts']) {
    assert.match(guide, new RegExp(`--${option}`));
    assert.match(optionsUsage(), new RegExp(`--${option}`));
  }
});
