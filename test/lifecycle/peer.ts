// A host or a guest in a process of its own, as the command line starts them, with its events as lines of JSON:
// `node peer.js host|guest '{...options}'`. Ends by SIGTERM, by its parent's end, or by SIGKILL.
import { type GuestAppOptions, runGuest } from '../../src/apps/guest/guest.js';
import { type HostAppOptions, runHost } from '../../src/apps/host/host.js';
import { parseUplink } from '../../src/host/uplinks/index.js';

const [role, text] = process.argv.slice(2) as [string, string];
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
process.stdin.resume().on('end', () => process.kill(process.pid, 'SIGTERM'));

try {
  if (role === 'host') {
    const given = JSON.parse(text) as HostAppOptions & { readonly uplinks: readonly unknown[] };
    const options = { ...given, uplinks: given.uplinks.map((uplink) => parseUplink(String(uplink))) };
    const { state } = await runHost(options, (ready) => say({ type: 'ready', ...ready }));
    say({ type: 'ended', state });
  } else {
    let timer: NodeJS.Timeout | undefined;
    const { stats } = await runGuest(JSON.parse(text) as GuestAppOptions, say, (read) => {
      timer = setInterval(() => say({ type: 'stats', ...read() }), 20);
    });
    clearInterval(timer);
    say({ type: 'ended', stats });
  }
  process.exit();
} catch (error) {
  say({ type: 'error', message: (error as Error).message });
  process.exit(1);
}
