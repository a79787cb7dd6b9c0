// What must be undone when the process ends: at exit, and at SIGINT, SIGTERM and SIGHUP unless the program handles those
// itself. Nothing helps against SIGKILL; who can leave something behind must find it at the next start.

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const registered = new Set<() => void>();
let listening = false;

/** Has `undo` called once at the process's end, last registered first. Returns how to take it back. Synchronous work only. */
export function registerCleanup(undo: () => void): () => void {
  const entry = () => undo(); // the same function may be registered twice
  registered.add(entry);
  listen();
  return () => {
    registered.delete(entry);
    if (registered.size === 0) ignore();
  };
}

function runAll(): void {
  for (const entry of [...registered].reverse()) {
    registered.delete(entry);
    try {
      entry();
    } catch (error) {
      process.stderr.write(`netvsc: clean-up failed: ${(error as Error).message}\n`);
    }
  }
}

function onSignal(signal: NodeJS.Signals): void {
  // Another listener means that the program ends itself, in its own order.
  if (process.listenerCount(signal) > 1) return;
  runAll();
  ignore();
  process.kill(process.pid, signal); // so that the parent sees what ended us
}

function listen(): void {
  if (listening) return;
  listening = true;
  process.on('exit', runAll);
  for (const signal of SIGNALS) process.on(signal, onSignal);
}

function ignore(): void {
  if (!listening) return;
  listening = false;
  process.off('exit', runAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}
