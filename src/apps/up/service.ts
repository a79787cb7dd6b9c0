// netvsc up as a service of systemd (Type=notify): says when packets can flow, as sd_notify(3) has it.
import { sendDatagram } from '../../memory/os/socket.js';

/** Says so to the service manager, if one started this process; `status` is one line for people. A manager that does not listen is
 *  told of in the log, and keeps nothing from working. */
export function tellServiceManager(status: string, log: (line: string) => void): void {
  const socket = process.env.NOTIFY_SOCKET;
  if (!socket) return;
  try {
    sendDatagram(socket, `READY=1\nSTATUS=${status}\n`);
  } catch (error) {
    log(`NOTIFY_SOCKET: ${(error as Error).message}`);
  }
}
