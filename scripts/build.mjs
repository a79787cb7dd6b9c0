// Builds everything into one folder (default dist/): TypeScript, then the constants that AssemblyScript needs from
// the wire and memory tables, then the data path's WebAssembly module.
//   node scripts/build.mjs [--out DIR]
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const outAt = process.argv.indexOf('--out');
const out = path.resolve(root, outAt < 0 ? 'dist' : process.argv[outAt + 1]);
const assembly = path.join(root, 'src/datapath/assembly');

function run(label, script, args) {
  const done = spawnSync(process.execPath, [path.join(root, 'node_modules', script), ...args], {
    cwd: root,
    stdio: 'inherit',
  });
  if (done.status !== 0) {
    process.stderr.write(`build: ${label} failed\n`);
    process.exit(1);
  }
}

run('tsc', 'typescript/bin/tsc', [
  '-p',
  'tsconfig.json',
  '--outDir',
  out,
  '--tsBuildInfoFile',
  path.join(out, '.tsbuildinfo'),
]);

{
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
}

// Newer than every source: ./netvsc compares.
writeFileSync(path.join(out, '.built'), '');
