// start, stop, quit, help.
import type { Command, Section } from '../grammar.js';
import type { Session } from '../session.js';

const SECTIONS: Readonly<Record<Section, string>> = {
  control: 'Start and stop forwarding.',
  display: 'Displaying port, stats and config information.',
  config: 'Configuration information.',
  ports: 'Configuring ports.',
};

const TITLES: Readonly<Record<Section, string>> = {
  ...{ control: 'Control forwarding:', display: 'Display:', config: 'Configuration:', ports: 'Port Operations:' },
};

const overview = (): string =>
  [
    '\nHelp is available for the following sections:\n',
    ...Object.entries(SECTIONS).map(([name, text]) => `    help ${name.padEnd(27)}: ${text}`),
    `    ${'help all'.padEnd(32)}: All of the above sections.\n`,
  ].join('\n');

function sectionText(commands: readonly Command[], section: Section): string {
  const title = TITLES[section];
  const rows = commands
    .filter((command) => command.section === section)
    .map(({ pattern, text }) => `${pattern}\n    ${text}\n`);
  return [`\n${title}\n${'-'.repeat(title.length)}\n`, ...rows].join('\n');
}

async function start(session: Session, txFirst: number): Promise<void> {
  await session.forwarder.start(txFirst);
}

/** `all`: every command, this file's too. */
export function controlCommands(all: () => readonly Command[]): Command[] {
  const sections = Object.keys(SECTIONS) as Section[];
  return [
    {
      ...{ pattern: 'start', section: 'control', text: 'Forward packets with the current configuration.' },
      run: (session) => start(session, 0),
    },
    {
      ...{ pattern: 'start tx_first', section: 'control', text: 'The same, after a burst from every stream.' },
      run: (session) => start(session, 1),
    },
    {
      ...{ pattern: 'start tx_first <n>', section: 'control', text: 'The same, after n bursts.' },
      run: (session, words) => start(session, words.number(0)),
    },
    {
      ...{ pattern: 'stop', section: 'control', text: 'Stop forwarding, and show what was forwarded.' },
      run: async (session) => void (await session.forwarder.stop()),
    },
    {
      ...{ pattern: 'quit', section: 'control', text: 'Stop, close the ports, end.' },
      run: (session) => {
        session.ended = true;
      },
    },
    {
      ...{ pattern: 'help', section: 'control', text: 'What help there is.' },
      run: ({ out }) => out.print(overview()),
    },
    {
      ...{ pattern: `help all|${sections.join('|')}`, section: 'control', text: 'Commands of a section.' },
      run: ({ out }, words) => {
        const wanted = sections.filter((section) => words.text(0) === 'all' || section === words.text(0));
        for (const section of wanted) out.print(sectionText(all(), section));
      },
    },
  ];
}
