// Counters of an interface as Prometheus text (exposition format 0.0.4), and who serves it.
import { createServer, type Server } from 'node:http';
import type { NetdevControl } from './control.js';

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
/** Of a whole request: nobody needs more to ask for one page. */
const REQUEST_MS = 5000;
const CLIENTS_MAX = 16;

export interface MetricsAddress {
  readonly host: string;
  /** 0 = any that is free. */
  readonly port: number;
}

const escaped = (text: string) => text.replace(/[\\"\n]/g, (letter) => (letter === '\n' ? '\\n' : `\\${letter}`));

/** All counters of `ethtool -S`, and whether the link is up. */
export function metricsText(name: string, control: NetdevControl): string {
  const label = `{interface="${escaped(name)}"}`;
  const line = (metric: string, type: string, value: number) =>
    `# TYPE ${metric} ${type}\n${metric}${label} ${value}\n`;
  const counters = control.statistics().map(([counter, value]) => {
    const metric = `netvsc_${counter.replace(/[^a-zA-Z0-9_]/g, '_')}`;
    return line(metric, 'counter', value);
  });
  return [line('netvsc_link_up', 'gauge', control.link().up ? 1 : 0), ...counters].join('');
}

/** Answers GET /metrics until close(). Rejects when the address cannot be had. */
export async function serveMetrics(address: MetricsAddress, text: () => string): Promise<MetricsServer> {
  const server = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS }, (request, response) => {
    const found = request.url === '/metrics' && request.method === 'GET';
    response.writeHead(found ? 200 : 404, { 'content-type': found ? METRICS_TYPE : 'text/plain' });
    response.end(found ? text() : 'GET /metrics\n');
  });
  server.maxConnections = CLIENTS_MAX;
  await new Promise<void>((resolve, reject) => {
    const failed = ({ message }: Error) => reject(new Error(`--metrics ${address.host}:${address.port}: ${message}`));
    server.once('error', failed);
    server.listen(address.port, address.host, () => {
      server.off('error', failed);
      server.on('error', () => {}); // of a later accept
      resolve();
    });
  });
  return new MetricsServer(server);
}

export class MetricsServer {
  readonly #server: Server;

  constructor(server: Server) {
    this.#server = server;
  }

  get port(): number {
    const address = this.#server.address();
    return address !== null && typeof address === 'object' ? address.port : 0;
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}
