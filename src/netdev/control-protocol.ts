// What goes over an interface's control socket: one JSON object a line, a request with its number and, for each, one reply
// with the same number: {"id":1,"op":"setChannels","args":{"combined":4}} and {"id":1,"result":null} or
// {"id":1,"error":{"code":"EINVAL","message":"..."}}.
import { FLOWS, NetdevError, type NetdevErrorCode } from './control.js';
import {
  fields,
  flag,
  list,
  named,
  nothing,
  oneOf,
  optional,
  pair,
  type Shape,
  type Shaped,
  ShapeError,
  text,
  whole,
} from './control-shapes.js';

/** A longer request, or reply, ends the connection. */
export const REQUEST_MAX_BYTES = 64 * 1024;
export const REPLY_MAX_BYTES = 4 * 1024 * 1024;

const WORD = 256;
const ID_MAX = 2 ** 31 - 1;
const NAMES = 256;
const QUEUES = 4096;
const TABLE = 4096;
const KEY = 256;
const COUNTERS = 65_536;

const count = whole(Number.MAX_SAFE_INTEGER);
const small = whole(0xffff_ffff);
const table = list(whole(QUEUES), TABLE);
const key = list(whole(255), KEY);
const level = oneOf('L3', 'L4');
const coalescing = { rxUsecs: small, rxFrames: small, txUsecs: small, txFrames: small };

const codes = [
  'EINVAL',
  'EOPNOTSUPP',
  'EBUSY',
  'ENODEV',
  'EIO',
  'ENOMEM',
  'ERANGE',
  'EPERM',
  'ETIMEDOUT',
] as const satisfies readonly NetdevErrorCode[];

/** Why something is as it is, for people. */
const REASON = { reason: text(1024) };

/** Which interface a socket is the control of. */
const info = fields({
  /** Its name now. */
  interface: text(15),
  /** Its network namespace now: the number that `networkOf` returns. */
  network: text(WORD),
  pid: whole(2 ** 31 - 1, 1),
  /** The device or port behind it, for people. */
  device: text(WORD),
});
export type InterfaceInfo = Shaped<typeof info>;

const operation = <A, R>(args: Shape<A>, result: Shape<R>) => ({ args, result });

/** Each operation's arguments and result. Those of NetdevControl have its names. */
export const OPERATIONS = {
  info: operation(nothing, info),
  /** Takes the interface down; the reply comes at once, the connection ends when it is down. */
  down: operation(nothing, nothing),
  /** Counters as Prometheus text. */
  metrics: operation(nothing, text(REPLY_MAX_BYTES)),
  driverInfo: operation(
    nothing,
    fields({ driver: text(WORD), version: text(WORD), firmwareVersion: text(WORD), busInfo: text(WORD) }),
  ),
  link: operation(nothing, fields({ up: flag, speedMbps: small, fullDuplex: flag, autonegotiated: flag })),
  features: operation(nothing, list(fields({ name: text(WORD), on: flag, wanted: flag, fixed: flag }, REASON), NAMES)),
  setFeatures: operation(fields({ wanted: named(flag, NAMES, WORD) }), nothing),
  channels: operation(nothing, fields({ maxCombined: small, combined: small }, REASON)),
  setChannels: operation(fields({ combined: small }), nothing),
  rings: operation(nothing, fields({ maxRx: small, maxTx: small, rx: small, tx: small })),
  setRings: operation(fields({}, { rx: small, tx: small }), nothing),
  rss: operation(nothing, fields({ rings: small, table, key, hashFunction: oneOf('toeplitz') })),
  setRss: operation(fields({}, { table, key }), nothing),
  flowHash: operation(fields({ flow: oneOf(...FLOWS) }), fields({ flow: oneOf(...FLOWS), level, receive: flag })),
  setFlowHash: operation(fields({ flow: oneOf(...FLOWS), level }), nothing),
  coalescing: operation(nothing, fields(coalescing)),
  setCoalescing: operation(fields({}, coalescing), nothing),
  pause: operation(nothing, optional(fields({ autonegotiate: flag, rx: flag, tx: flag }))),
  registers: operation(nothing, fields({ sendTable: list(small, 16) })),
  permanentAddress: operation(nothing, text(WORD)),
  statistics: operation(nothing, list(pair(text(WORD), count), COUNTERS)),
} as const;

export type OperationName = keyof typeof OPERATIONS;
export type Arguments<N extends OperationName> = Shaped<(typeof OPERATIONS)[N]['args']>;
export type Result<N extends OperationName> = Shaped<(typeof OPERATIONS)[N]['result']>;

const anything: Shape<unknown> = (value) => value;
const header = fields({ id: whole(ID_MAX), op: text(WORD) }, { args: anything });
const errorShape = fields({ code: oneOf(...codes), message: text(4096) });
const replyShape = fields({ id: whole(ID_MAX) }, { result: anything, error: errorShape });

/** A request whose operation and arguments are what they should be. */
export type Request = {
  [N in OperationName]: { readonly id: number; readonly op: N; readonly args: Arguments<N> };
}[OperationName];

/** Why a line is no request; `id` as far as it could be read, else 0. */
export class BadRequest extends ShapeError {
  readonly id: number;

  constructor(id: number, message: string) {
    super(message);
    this.id = id;
  }
}

/** Throws BadRequest. */
export function parseRequest(line: string): Request {
  let id = 0;
  try {
    const given = header(parseJson(line), 'request');
    id = given.id;
    if (!Object.hasOwn(OPERATIONS, given.op))
      throw new ShapeError(`request.op: expected ${Object.keys(OPERATIONS).join(', ')}, got ${quoted(given.op)}`);
    const op = given.op as OperationName;
    return { id, op, args: OPERATIONS[op].args(given.args, `${op}.args`) } as Request;
  } catch (error) {
    if (error instanceof ShapeError) throw new BadRequest(id, error.message);
    throw error;
  }
}

export const encodeRequest = <N extends OperationName>(id: number, op: N, args: Arguments<N>): string =>
  `${JSON.stringify({ id, op, args })}\n`;

/** Result as the peer's parseReply takes it. Throws ShapeError: a result that is none must not go out. */
export function encodeResult(id: number, op: OperationName, result: unknown): string {
  return `${JSON.stringify({ id, result: OPERATIONS[op].result(result, `${op}.result`) ?? null })}\n`;
}

export function encodeError(id: number, error: unknown): string {
  const { code, message } = toNetdevError(error);
  return `${JSON.stringify({ id, error: { code, message: message.slice(0, 4096) } })}\n`;
}

/** Result of the request with this number. Throws the NetdevError that the other side sent, or ShapeError. */
export function parseReply<N extends OperationName>(line: string, id: number, op: N): Result<N> {
  const reply = replyShape(parseJson(line), 'reply');
  if (reply.error) throw new ReplyError(reply.error.code, reply.error.message);
  if (reply.id !== id) throw new ShapeError(`reply.id: expected ${id}, got ${reply.id}`);
  return OPERATIONS[op].result(reply.result, `${op}.result`) as Result<N>;
}

/** An error that came from the other side, its message as it was there. */
class ReplyError extends NetdevError {
  constructor(code: NetdevErrorCode, message: string) {
    super(code, 'interface', '');
    this.message = message;
  }
}

function toNetdevError(error: unknown): { code: NetdevErrorCode; message: string } {
  if (error instanceof NetdevError) return error;
  if (error instanceof ShapeError) return { code: 'EINVAL', message: error.message };
  const { code, message } = error as NodeJS.ErrnoException;
  return { code: (codes as readonly string[]).includes(code ?? '') ? (code as NetdevErrorCode) : 'EIO', message };
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    throw new ShapeError(`line: expected one JSON object, got ${quoted(line)}`);
  }
}

const quoted = (given: string): string =>
  given.length > WORD ? `${given.length} characters: ${JSON.stringify(given.slice(0, 40))}...` : JSON.stringify(given);
