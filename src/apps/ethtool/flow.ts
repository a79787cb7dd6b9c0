// Which fields of received packets are hashed: -n and -N. Filters, the other use of these options, hv_netvsc has none.
import { FLOWS, type Flow, type FlowHash } from '../../netdev/control.js';
import { type Asked, badArguments, byIoctl, type Command, ioctlFailure, NoSuchInterface } from './types.js';
import { parseU32 } from './words.js';

const CANNOT_GET = 'Cannot get RX network flow hashing options';
const CANNOT_CHANGE = 'Cannot change RX network flow hashing options';

/** How ethtool calls them. "ether" has no name at all. */
const FLOW_NAMES: Readonly<Record<string, string>> = {
  tcp4: 'TCP over IPV4 flows',
  udp4: 'UDP over IPV4 flows',
  sctp4: 'SCTP over IPV4 flows',
  ah4: 'IPSEC AH/ESP over IPV4 flows',
  esp4: 'IPSEC AH/ESP over IPV4 flows',
  tcp6: 'TCP over IPV6 flows',
  udp6: 'UDP over IPV6 flows',
  sctp6: 'SCTP over IPV6 flows',
  ah6: 'IPSEC AH/ESP over IPV6 flows',
  esp6: 'IPSEC AH/ESP over IPV6 flows',
  ether: '',
};

const L3 = 'IP SA\nIP DA\n';
const L4 = 'L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n';
const FIELDS = 'mvtsdfnr';

const isOurs = (flow: string): flow is Flow => (FLOWS as readonly string[]).includes(flow);

export const showFlow: Command = async (asked) => {
  const [option, flow, contextWord, context] = asked.words;
  if (option === undefined) return showRings(asked);
  if (option === 'rule') return showRule(asked);
  const inContext = contextWord === 'context' && asked.words.length === 4 && parseU32(context!) !== undefined;
  if (option !== 'rx-flow-hash' || flow === undefined || !Object.hasOwn(FLOW_NAMES, flow)) throw badArguments();
  if (asked.words.length !== 2 && !inContext) throw badArguments();
  return byIoctl(asked, 1, CANNOT_GET, async (remote) => {
    if (inContext && parseU32(context!) !== 0) return say(asked, `${CANNOT_GET}: Operation not supported`);
    const hash = isOurs(flow) ? await remote.flowHash(flow) : undefined;
    asked.out(flowText(flow, hash?.level));
    if (hash) asked.err(`netvsc: ${asked.name}: ${directions(hash)}\n`);
    return 0;
  });
};

/** `level` undefined: nothing of these flows is hashed. */
export function flowText(flow: string, level: 'L3' | 'L4' | undefined): string {
  const fields = level === undefined ? '' : level === 'L3' ? L3 : L3 + L4;
  return `${FLOW_NAMES[flow]} use these fields for computing Hash flow key:\n${fields}\n`;
}

/** What ethtool has no words for: hv_netvsc hashes sent packets only. */
const directions = ({ receive }: FlowHash): string =>
  receive ? 'sent and received packets are hashed so' : 'sent packets are hashed so, received ones as the host likes';

async function showRings(asked: Asked): Promise<number> {
  let reason = 'Operation not supported';
  try {
    const { combined } = await (await asked.open()).channels();
    asked.out(`${combined} RX rings available\n`);
  } catch (error) {
    ioctlFailure(asked, 'Cannot get RX rings', error);
    if (error instanceof NoSuchInterface) reason = 'No such device';
  }
  return say(asked, `rxclass: Cannot get RX class rule count: ${reason}`, 'RX classification rule retrieval failed');
}

async function showRule(asked: Asked): Promise<number> {
  if (asked.words.length !== 2 || parseU32(asked.words[1]!) === undefined) throw badArguments();
  return noRules(asked, 'rxclass: Cannot get RX class rule', 'Cannot get RX classification rule');
}

export const setFlow: Command = async (asked) => {
  const [option, ...rest] = asked.words;
  if (option === 'rx-flow-hash') return setFlowHash(asked, rest);
  if (option === 'flow-type') return insertRule(asked, rest);
  if (option === 'delete') return deleteRule(asked, rest);
  throw badArguments();
};

async function setFlowHash(asked: Asked, [flow, letters, contextWord, context, ...rest]: string[]): Promise<number> {
  if (flow === undefined || !Object.hasOwn(FLOW_NAMES, flow) || letters === undefined) throw badArguments();
  const fields = new Set(letters);
  for (const letter of fields) if (!FIELDS.includes(letter)) throw badArguments();
  const number = contextWord === 'context' && context !== undefined ? parseU32(context) : undefined;
  if (rest.length > 0 || (contextWord !== undefined && number === undefined)) throw badArguments();
  const sorted = [...fields].sort().join('');
  const level = sorted === 'ds' ? 'L3' : sorted === 'dfns' ? 'L4' : undefined;
  // ethtool 6.1 ends with 0 here even if the change failed.
  return byIoctl(asked, 0, CANNOT_CHANGE, async (remote) => {
    if (level === undefined || !isOurs(flow) || (number ?? 0) !== 0) {
      asked.err(`${CANNOT_CHANGE}: Operation not supported\n`);
      return 0;
    }
    await remote.setFlowHash(flow, level);
    return 0;
  });
}

async function insertRule(asked: Asked, [flow]: string[]): Promise<number> {
  if (flow === undefined) throw badArguments();
  if (!(flow in FLOW_NAMES) && flow !== 'ip4' && flow !== 'ip6') {
    asked.err('Add rule, invalid syntax\n');
    throw badArguments();
  }
  return noRules(asked, 'rxclass: Cannot get RX class rule count', 'Cannot insert classification rule');
}

async function deleteRule(asked: Asked, words: string[]): Promise<number> {
  if (words.length !== 1 || parseU32(words[0]!) === undefined) throw badArguments();
  return noRules(asked, 'rmgr: Cannot delete RX class rule', 'Cannot delete classification rule');
}

async function noRules(asked: Asked, what: string, then: string): Promise<number> {
  await byIoctl(asked, 1, what, async (remote) => {
    await remote.channels();
    return say(asked, `${what}: Operation not supported`);
  });
  return say(asked, then);
}

function say(asked: Asked, ...lines: string[]): number {
  asked.err(lines.map((line) => `${line}\n`).join(''));
  return 1;
}
