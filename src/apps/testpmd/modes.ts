// The forwarding modes, by the names that testpmd has for them.

export const MODES = ['io', 'mac', 'macswap', 'flowgen', 'rxonly', 'txonly', 'csum', 'icmpecho', '5tswap'] as const;
export type Mode = (typeof MODES)[number];

/** Modes that can try again what a transmit queue had no room for. */
export const RETRY_MODES: readonly Mode[] = ['io', 'mac', 'macswap', 'csum', 'flowgen', 'icmpecho', 'txonly', '5tswap'];

export const isMode = (text: string): text is Mode => (MODES as readonly string[]).includes(text);
