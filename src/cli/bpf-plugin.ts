// netvsc-bpf-plugin: a program of its own, as conformance suites start it hundreds of times.
import { readFileSync } from 'node:fs';
import { runPlugin } from '../apps/bpf-plugin/plugin.js';

const result = await runPlugin(process.argv.slice(2), () => readFileSync(0, 'utf8'));
if ('output' in result) {
  process.stdout.write(`${result.output}\n`);
} else {
  process.stderr.write(`${result.error}\n`);
  process.exitCode = 1;
}
