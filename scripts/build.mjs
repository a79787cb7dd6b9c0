// Builds everything into one folder (default dist/): TypeScript, then the constants that AssemblyScript needs from
// the wire and memory tables, then the data path's WebAssembly module. What compiles is written even when other files
// do not; the exit code tells.
//   node scripts/build.mjs [--out DIR]
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const outAt = process.argv.indexOf('--out');
const out = path.resolve(root, outAt < 0 ? 'dist' : process.argv[outAt + 1]);
const assembly = path.join(root, 'src/datapath/assembly');
const stamp = path.join(out, '.built');
let failed = false;

function run(label, script, args) {
  const command = [path.join(root, 'node_modules', script), ...args];
  if (spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit' }).status === 0) return;
  process.stderr.write(`build: ${label} failed\n`);
  failed = true;
}

rmSync(stamp, { force: true });
const info = path.join(out, '.tsbuildinfo');
run('tsc', 'typescript/bin/tsc', ['-p', 'tsconfig.json', '--outDir', out, '--tsBuildInfoFile', info]);

const { assemblyConstants } = await import(pathToFileURL(path.join(out, 'src/memory/assembly-constants.js')).href);
const generated = path.join(assembly, 'generated.ts');
const text = assemblyConstants();
if (!existsSync(generated) || readFileSync(generated, 'utf8') !== text) writeFileSync(generated, text);
mkdirSync(path.join(out, 'src/datapath'), { recursive: true });
run('asc', 'assemblyscript/bin/asc.js', [
  path.join(assembly, 'index.ts'),
  ...['--outFile', path.join(out, 'src/datapath/datapath.wasm')],
  ...['-O3', '--converge', '--noAssert', '--runtime', 'stub', '--importMemory', '--sharedMemory'],
  ...['--initialMemory', '16', '--maximumMemory', '65536'],
  ...['--enable', 'simd', '--enable', 'threads', '--enable', 'bulk-memory'],
]);

if (failed) process.exit(1);
// Newer than every source: ./netvsc compares.
writeFileSync(stamp, '');
