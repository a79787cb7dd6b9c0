// Shared by tests that need machine directories and peers in processes of their own.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

let machines = 0;

/** A machine name that no other test and no parallel run uses. */
export function testMachineName(): string {
  return `test-${process.pid}-${++machines}`;
}

/** A peer in a process of its own. `facts`: the line that it printed when it was ready. */
export interface TestPeer {
  readonly facts: Record<string, string>;
  /** SIGKILL; resolves once the process is gone. */
  kill(): Promise<void>;
}

/** Starts testing-peer.js and waits until it is ready. It ends with the test. */
export async function startPeer(t: TestContext, ...args: string[]): Promise<TestPeer> {
  const script = fileURLToPath(new URL('./testing-peer.js', import.meta.url));
  const child = spawn(process.execPath, ['--enable-source-maps', script, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) child.stdin.end();
    await ended;
  });
  const kill = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  return { facts: await firstLine(child), kill };
}

async function firstLine(child: ChildProcess): Promise<Record<string, string>> {
  let text = '';
  for await (const chunk of child.stdout!) {
    text += chunk;
    if (text.includes('\n')) return JSON.parse(text.slice(0, text.indexOf('\n')));
  }
  throw new Error(`peer ended before it was ready: ${text}`);
}
