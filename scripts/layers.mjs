// Checks the layer arrows of DESIGN.md: a file in src/ may import from its own room and from rooms below it.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const src = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'src');

/** Room -> rooms right below it. What these may import is allowed too. */
const arrows = {
  cli: ['apps'],
  api: ['drivers'],
  apps: ['netdev', 'host', 'drivers', 'netvsc'],
  netdev: ['ethdev', 'offload', 'xdp'],
  drivers: ['ethdev', 'netvsc', 'xdp'],
  netvsc: ['vmbus', 'offload'],
  host: ['vmbus', 'offload'],
  ethdev: ['memory', 'datapath'],
  xdp: ['memory', 'datapath'],
  vmbus: ['memory', 'datapath'],
  offload: ['memory', 'datapath'],
  memory: ['wire'],
  datapath: ['wire'],
  wire: [],
};

function below(room, seen = new Set()) {
  for (const next of arrows[room]) {
    if (!seen.has(next)) below(next, seen.add(next));
  }
  return seen;
}

const problems = [];
for (const entry of readdirSync(src, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !entry.name.endsWith('.ts')) continue;
  const file = path.join(entry.parentPath ?? entry.path, entry.name);
  const room = path.relative(src, file).split(path.sep)[0];
  if (!(room in arrows)) {
    problems.push(`${path.relative(src, file)}: '${room}' is not a room of DESIGN.md`);
    continue;
  }
  const text = readFileSync(file, 'utf8');
  const lines = text.split('\n').length - 1;
  if (lines > 500 && entry.name !== 'generated.ts')
    problems.push(`${path.relative(src, file)}: ${lines} lines; split files above 500`);
  for (const [, target] of text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']*)'/g)) {
    const to = path.relative(src, path.resolve(path.dirname(file), target)).split(path.sep)[0];
    if (to === room || below(room).has(to)) continue;
    problems.push(
      `${path.relative(src, file)}: imports ${target}, but the arrows lead from '${room}' only to ${[...below(room)].join(', ') || 'nothing'}`,
    );
  }
  const outsideOs = !path.relative(src, file).startsWith(path.join('memory', 'os'));
  if (outsideOs && /from 'koffi'|import\('koffi'\)/.test(text))
    problems.push(`${path.relative(src, file)}: koffi belongs in memory/os`);
}
for (const problem of problems) process.stderr.write(`layers: ${problem}\n`);
process.exit(problems.length === 0 ? 0 : 1);
