// netvsc xdp
import type { Command } from 'commander';
import { programText, readObject, reportObject, reportText } from '../apps/xdp/report.js';
import { jsonOption } from './limits.js';

interface Given {
  readonly type: string[];
  readonly set: string[];
  readonly json: boolean;
}

const collect = (value: string, list: string[]): string[] => [...list, value];

export function addXdp(program: Command): void {
  const xdp = program.command('xdp').description('eBPF programs for network interfaces: what is in an object');
  const command = (parent: Command, name: string, description: string) =>
    parent
      .command(name)
      .description(description)
      .argument('<object>', 'an ELF object, as clang -O2 -g -target bpf makes it')
      .option(
        '--type <type>',
        'what programs are whose section does not tell: xdp, xdp.frags, xdp/devmap, ...; or NAME=TYPE for one section ' +
          'or program (repeatable)',
        collect,
        [],
      );

  command(xdp, 'show', 'programs, maps and global variables of an object, and what was left out')
    .option('--set <name=value>', 'give a global variable a value, in JSON (repeatable)', collect, [])
    .addOption(jsonOption())
    .action((file: string, given: Given) => {
      const report = reportObject(file, readObject(file, { types: given.type, settings: given.set }));
      write(given.json ? [JSON.stringify(report)] : reportText(report));
    });

  const prog = xdp.command('prog').description('one program of an object');
  command(prog, 'dump', 'instructions of a program')
    .argument('[program]', 'its name, where the object has several')
    .option('--disasm', 'as text, with source lines (this is what is printed anyway)')
    .action((file: string, name: string | undefined, given: Given) => {
      const object = readObject(file, { types: given.type });
      write(programText(object, object.program(name)));
    });
}

/** In one piece, for readers that stop after the first line. */
const write = (lines: readonly string[]): void => void process.stdout.write(`${lines.join('\n')}\n`);
