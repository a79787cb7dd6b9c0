// Counters of an interface as Prometheus text (exposition format 0.0.4), and who serves it.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { NetdevControl } from './control.js';
import { COUNTERS, QUEUE_COUNTERS } from './statistics.js';

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
/** Of a whole request, and of a connection without one: nobody needs more to ask for one page. */
const REQUEST_MS = 5000;
/** Of a request's line and headers. */
const HEADER_BYTES = 8192;
const CLIENTS_MAX = 16;

export interface MetricsAddress {
  readonly host: string;
  /** 0 = any that is free. */
  readonly port: number;
}

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

interface Family {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  readonly help: string;
  readonly samples: Sample[];
}

/** PORT, 127.0.0.1:PORT, [::1]:PORT. Undefined: it is none of these. Without an address it is this machine's own. */
export function parseMetricsAddress(text: string): MetricsAddress | undefined {
  const [, host = '127.0.0.1', port] = /^(?:(\[[0-9a-f:.]+\]|[^:\s[\]]+):)?(\d{1,5})$/i.exec(text) ?? [];
  if (port === undefined || Number(port) > 65_535) return undefined;
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
}

const escapedHelp = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
const escapedLabel = (text: string) => escapedHelp(text).replaceAll('"', '\\"');

/** What of `ethtool -S` has a queue's number in its name. */
const OF_QUEUE = /^([tr]x)_queue_(\d+)_(.+)$/;
const HELP = new Map(COUNTERS.map((counter) => [counter.name, counter]));
const QUEUE_HELP: ReadonlyMap<string, string> = new Map(
  (['tx', 'rx'] as const).flatMap((way) =>
    QUEUE_COUNTERS[way].map(([name, help]) => [`${way} ${name}`, help] as const),
  ),
);

/** All counters of `ethtool -S`, link and driver. */
export function metricsText(name: string, control: NetdevControl): string {
  const families = new Map<string, Family>();
  const add = (family: Omit<Family, 'samples'>, labels: Readonly<Record<string, string>>, value: number): void => {
    const found = families.get(family.name) ?? { ...family, samples: [] };
    families.set(family.name, found);
    found.samples.push([{ interface: name, ...labels }, value]);
  };
  const { driver, version, busInfo } = control.driverInfo();
  const link = control.link();
  const info = { name: 'netvsc_info', type: 'gauge', help: 'Driver and device of the interface; always 1' } as const;
  add(info, { driver, version, device: busInfo }, 1);
  add({ name: 'netvsc_link_up', type: 'gauge', help: 'Whether the link is up' }, {}, link.up ? 1 : 0);
  const speed = {
    name: 'netvsc_link_speed_bits_per_second',
    type: 'gauge',
    help: 'Speed of the link; 0 is unknown',
  } as const;
  add(speed, {}, link.speedMbps * 1e6);
  for (const [counter, value] of control.statistics()) {
    const [, way, queue, what] = OF_QUEUE.exec(counter) ?? [];
    if (way !== undefined) {
      const help = QUEUE_HELP.get(`${way} ${what}`) ?? counter;
      add({ name: familyName(`${way}_queue_${what}_total`), type: 'counter', help }, { queue: queue! }, value);
    } else {
      const { help = counter, gauge = false } = HELP.get(counter) ?? {};
      const type = gauge ? 'gauge' : 'counter';
      add({ name: familyName(gauge ? counter : `${counter}_total`), type, help }, {}, value);
    }
  }
  return [...families.values()].map(familyText).join('');
}

const familyName = (name: string): string => `netvsc_${name.replace(/[^a-zA-Z0-9_]/g, '_')}`;

function familyText({ name, type, help, samples }: Family): string {
  const lines = samples.map(([labels, value]) => {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapedLabel(text)}"`);
    return `${name}{${pairs.join(',')}} ${value}\n`;
  });
  return `# HELP ${name} ${escapedHelp(help)}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}

/** Answers GET /metrics until close(). Rejects when the address cannot be had. */
export async function serveMetrics(address: MetricsAddress, text: () => string): Promise<MetricsServer> {
  const options = {
    ...{ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, keepAliveTimeout: REQUEST_MS },
    ...{ connectionsCheckingInterval: REQUEST_MS / 5, maxHeaderSize: HEADER_BYTES },
  };
  const server = createServer(options, (request, response) => answer(request, response, text));
  server.maxConnections = CLIENTS_MAX;
  server.setTimeout(REQUEST_MS);
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

function answer(request: IncomingMessage, response: ServerResponse, text: () => string): void {
  request.resume();
  const { status, type = 'text/plain; charset=utf-8', body, allow } = page(request, text);
  const bytes = Buffer.from(body);
  response.writeHead(status, {
    ...{ 'content-type': type, 'content-length': bytes.length, 'x-content-type-options': 'nosniff' },
    ...(allow !== undefined && { allow }),
  });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

interface Page {
  readonly status: number;
  readonly body: string;
  readonly type?: string;
  readonly allow?: string;
}

function page({ url = '', method = '' }: IncomingMessage, text: () => string): Page {
  if (url.replace(/\?.*$/, '') !== '/metrics') return { status: 404, body: 'not here: GET /metrics\n' };
  const allow = 'GET, HEAD';
  if (!allow.split(', ').includes(method)) return { status: 405, body: `${allow} /metrics\n`, allow };
  try {
    return { status: 200, body: text(), type: METRICS_TYPE };
  } catch (error) {
    return { status: 500, body: `${(error as Error).message}\n` };
  }
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
