import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PROFILE_NAMES, PROFILES } from './profiles.js';
import { concat, createRig, words } from './raw-guest-testing.js';

const VERSIONS = { V1: 2, V2: 0x30002, V4: 0x40000, V5: 0x50000, V6: 0x60000, V61: 0x60001 };

test('init byte for byte, each profile, each version up to its ceiling', (t) => {
  for (const profile of PROFILE_NAMES) {
    const { guest, host, close } = createRig(t, { profile });
    for (const version of Object.values(VERSIONS)) {
      guest.open();
      const granted = version <= PROFILES[profile].maxNvsp;
      const answer = guest.init(version)!;
      const expected = words(2, version === 2 ? 2 : 0xffffffff, 34, granted ? 1 : 0);
      const padding = new Uint8Array((version === 0x60001 && granted ? 40 : 32) - 16);
      assert.deepEqual(answer, concat(expected, padding), `${profile} ${version.toString(16)}`);
      if (granted) {
        const bytes = version === 0x60001 ? 40 : 32;
        if (version > 2) assert.equal(guest.config(1514)!.length, 0);
        assert.equal(guest.ndisVersion(6, 1)!.length, 0);
        const count = Math.floor((512 << 10) / 1806);
        const buffer = concat(words(102, 1, 1, 0, 1806, count, 1806 * count), new Uint8Array(bytes - 28));
        assert.deepEqual(guest.receiveBuffer(), buffer);
        assert.deepEqual(guest.sendBuffer(), concat(words(105, 1, 6144), new Uint8Array(bytes - 12)));
        assert.equal(host.nics[0]!.phase, 'ready');
        const initialized = words(0x80000002, 52, 9, 0, 1, 0, 1, 0, 8, 0xefffffff, 3, 0, 0);
        assert.deepEqual(guest.initialize(9), initialized);
      } else assert.equal(host.nics[0]!.phase, 'version');
      guest.close();
      assert.equal(host.nics[0]!.phase, 'closed');
    }
    close();
  }
});
