// The preload shim (native/): built with the system's C compiler when it is first used, and again when it has
// changed.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { packageRoot } from '../package-info.js';

/** What builds it and what became of that; the message is for the user. */
export class ShimError extends Error {
  override name = 'ShimError';
}

const COMPILERS = ['cc', 'gcc', 'clang'];
const FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-fPIC', '-shared', '-fvisibility=hidden'];
const LIBRARIES = ['-ldl', '-lpthread'];
/** Separators of LD_PRELOAD, which knows no quotes. */
const UNUSABLE = /[\s:]/;

/** Path of the shim's shared object. Throws ShimError: no compiler, or one that fails; no place to put it. */
export function shimPath(environment: NodeJS.ProcessEnv = process.env): string {
  const native = path.join(packageRoot(), 'native');
  const files = readdirSync(native).filter((name) => /\.[ch]$/.test(name));
  const sources = files.filter((name) => name.endsWith('.c')).map((name) => path.join(native, name));
  const hash = createHash('sha256').update(FLAGS.join(' '));
  for (const name of files.sort()) hash.update(name).update(readFileSync(path.join(native, name)));
  const name = `preload-${process.arch}-${hash.digest('hex').slice(0, 16)}.so`;
  const folders = shimFolders(environment);
  for (const folder of folders) if (existsSync(path.join(folder, name))) return path.join(folder, name);
  const folder = folders.find(isWritable);
  if (folder === undefined) throw new ShimError(`cannot write the preload shim to ${folders.join(' or ')}`);
  const target = path.join(folder, name);
  // Two first runs at once build two files, and the second one replaces the first by the same.
  const draft = path.join(folder, `.${name}.${process.pid}`);
  try {
    compile(sources, draft, environment);
    renameSync(draft, target);
  } finally {
    rmSync(draft, { force: true });
  }
  return target;
}

/** Where it may be: beside what was built, or in the user's cache. */
function shimFolders(environment: NodeJS.ProcessEnv): string[] {
  const { XDG_CACHE_HOME: cache } = environment;
  const base = cache?.startsWith('/') ? cache : path.join(homedir(), '.cache');
  const folders = [path.join(packageRoot(), 'dist/native'), path.join(base, 'netvsc/native')];
  const usable = folders.filter((folder) => !UNUSABLE.test(folder));
  if (usable.length > 0) return usable;
  throw new ShimError(`the preload shim needs a path without blanks and colons, not ${folders.join(' or ')}`);
}

function isWritable(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function compile(sources: readonly string[], output: string, environment: NodeJS.ProcessEnv): void {
  const compilers = environment.CC ? [environment.CC] : COMPILERS;
  for (const compiler of compilers) {
    const { error, status, stderr } = spawnSync(compiler, [...FLAGS, '-o', output, ...sources, ...LIBRARIES], {
      env: environment,
      encoding: 'utf8',
    });
    if ((error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') continue;
    if (error) throw new ShimError(`${compiler}: ${error.message}`);
    if (status === 0) return;
    const first = stderr.split('\n').find((line) => /error/.test(line)) ?? `exit code ${status}`;
    throw new ShimError(`${compiler} cannot build ${path.dirname(sources[0]!)}: ${first}`);
  }
  throw new ShimError(
    `no C compiler (${compilers.join(', ')}), which builds the preload shim at the first run: install gcc or clang`,
  );
}
