// A process in a network namespace of its own, which does with that namespace's stack what its parent asks for. It ends
// with its parent, and the namespace with it.
import { constants } from 'node:os';
import { unshareNetwork } from '../../memory/os/netns.js';
import { setParentDeathSignal } from '../../memory/os/process.js';
import { configure, ip, kernelCounters, ping, resolve } from './agent-network.js';
import { receiveStream, sendStream } from './agent-tcp.js';
import { receiveDatagrams, sendDatagrams } from './agent-udp.js';
import type { AgentCommand, AgentCommands, AgentMessage, AgentRequest, Progress } from './protocol.js';

type Report = (progress: Progress) => void;
type Handlers = {
  [K in AgentCommand]: (given: AgentCommands[K]['in'], report: Report) => Promise<AgentCommands[K]['out']>;
};

const handlers: Handlers = {
  configure,
  resolve: ({ ifname, target }) => resolve(ifname, target),
  ping: ({ target, count, bytes, timeoutMs }) => ping(target, count, bytes, timeoutMs),
  tcpSend: sendStream,
  tcpReceive: receiveStream,
  udpReceive: receiveDatagrams,
  udpSend: sendDatagrams,
  kernel: async () => kernelCounters(),
};

const say = (message: AgentMessage): void => {
  if (process.connected) process.send!(message);
};

async function handle({ id, command, arguments: given }: AgentRequest): Promise<void> {
  try {
    const handler = handlers[command] as (given: unknown, report: Report) => Promise<unknown>;
    const result = await handler(given, (progress) => say({ type: 'progress', id, progress }));
    say({ type: 'result', id, result });
  } catch (error) {
    say({ type: 'error', id, reason: (error as Error).message });
  }
}

async function main(): Promise<void> {
  if (!process.send) throw new Error('an agent is started by the demo, not by hand');
  process.on('disconnect', () => process.exit(0));
  // Ctrl-C reaches every process of the terminal; the parent decides when agents end.
  process.on('SIGINT', () => {});
  setParentDeathSignal(constants.signals.SIGKILL);
  try {
    unshareNetwork();
    await ip('link', 'set', 'lo', 'up');
  } catch (error) {
    say({ type: 'failed', reason: (error as Error).message });
    return;
  }
  process.on('message', (request: AgentRequest) => void handle(request));
  say({ type: 'hello', pid: process.pid });
}

await main();
