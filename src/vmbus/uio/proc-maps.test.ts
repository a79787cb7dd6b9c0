import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { findMapping, mappingRefusal, parseMappings } from './proc-maps.js';

const MAPS = parseMappings(`00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/node
7f0000000000-7f0000021000 rw-p 00000000 00:00 0
7f1200000000-7f1200010000 rw-s 00003000 00:01 1047 /memfd:netvsc packets (deleted)
7f1200010000-7f1200012000 -w-s 00000000 103:1002 77 /dev/shm/x
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`);

test('finds the line that holds a page, with its file', () => {
  const mapping = findMapping(MAPS, 0x7f120000f)!;
  assert.deepEqual(mapping, {
    firstPage: 0x7f1200000,
    pages: 16,
    offset: 0x3000,
    device: 1,
    inode: 1047,
    readable: true,
    shared: true,
    range: '7f1200000000-7f1200010000',
  });
  assert.equal(findMapping(MAPS, 0x7f1200010)!.device, 0x10_10302);
  assert.equal(findMapping(MAPS, 0x7f1200012), undefined);
  assert.equal(findMapping(MAPS, 0), undefined);
});

test('says why a mapping cannot be shown', () => {
  const reasons = [0x400, 0x7f0000000, 0x7f1200000, 0x7f1200010, 0xffffffffff600].map((page) =>
    mappingRefusal(findMapping(MAPS, page)!),
  );
  assert.deepEqual(reasons, ['a private mapping', 'anonymous memory', undefined, 'not readable', 'anonymous memory']);
});

test('any text and any page is taken without an exception', () => {
  const line = fc.stringMatching(/^[0-9a-f]{1,16}-[0-9a-f]{1,16} [r-][w-][x-][sp] [0-9a-f]{1,8} 00:01 [0-9]{1,6}$/);
  fc.assert(
    fc.property(fc.array(fc.oneof(line, fc.string())), fc.nat({ max: Number.MAX_SAFE_INTEGER }), (lines, page) => {
      const mapping = findMapping(parseMappings(lines.join('\n')), page);
      if (mapping) assert.ok(mapping.pages > 0 && mapping.firstPage <= page);
    }),
  );
});
