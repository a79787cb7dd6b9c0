import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_PROFILE, MTU, NICS, OptionError, parseProfile, parseSeconds, parseWhole } from './options.js';
import { MAIN_BYTES, makePlan, udpSizes } from './plan.js';

const jobsOf = (nics: number, mtu: number, seconds?: number) => {
  const plan = makePlan({ nics, ...(seconds === undefined ? {} : { seconds }) }, mtu);
  return { plan, jobs: plan.phases.flatMap((phase) => phase.jobs) };
};

test('the default plan: at least 1 GB by TCP, both families, both ways', () => {
  const { jobs } = jobsOf(2, 1500);
  assert.equal(MAIN_BYTES >= 1e9, true);
  const tcp = jobs.filter((job) => job.kind === 'tcp');
  assert.equal(
    tcp.some((job) => job.bytes === MAIN_BYTES && job.seconds === undefined),
    true,
  );
  for (const kind of ['resolve', 'ping', 'tcp', 'udp'] as const) {
    for (const family of [4, 6] as const) {
      const ways = jobs
        .filter((job) => job.kind === kind && job.family === family)
        .map((job) => `${job.from}>${job.to}`);
      assert.equal(ways.includes('0>1'), true, `${kind} ${family}`);
      if (kind !== 'udp') assert.equal(ways.includes('1>0'), true, `${kind} ${family} back`);
    }
  }
});

test('every NIC is used, jobs of a phase have different ends, stations have different addresses', () => {
  for (let nics = NICS.min; nics <= NICS.max; nics++) {
    const { plan, jobs } = jobsOf(nics, 1500);
    assert.equal(plan.stations.length, nics + 1);
    assert.equal(new Set(plan.stations.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6])).size, 2 * (nics + 1));
    for (let nic = 0; nic < nics; nic++) {
      assert.equal(
        jobs.some((job) => job.kind === 'tcp' && (job.from === nic || job.to === nic)),
        true,
        `nic${nic}`,
      );
      assert.equal(
        jobs.some((job) => job.kind === 'ping' && job.from === nic && job.to === nics),
        true,
        `nic${nic}`,
      );
    }
    for (const { jobs: own } of plan.phases) {
      assert.equal(new Set(own.map((job) => `${job.from}>${job.to}`)).size, own.length);
      for (const job of own) assert.notEqual(job.from, job.to);
    }
  }
});

test('--seconds bounds every transfer', () => {
  for (const job of jobsOf(4, 1500, 3).jobs) {
    if (job.kind === 'tcp' || job.kind === 'udp') assert.equal(job.seconds, 3);
  }
});

test('sizes suit the MTU', () => {
  assert.deepEqual(udpSizes(4, 1500), [1, 18, 64, 256, 512, 1000, 1472, 1473, 1500, 4500, 65_507]);
  assert.equal(udpSizes(6, 9000).at(-1), 65_527);
  for (const mtu of [MTU.min, 576, 1280, 9000, MTU.max]) {
    for (const job of jobsOf(2, mtu).jobs) {
      const sizes = job.kind === 'udp' ? job.sizes : job.kind === 'ping' ? job.sizes.map(({ bytes }) => bytes) : [];
      const most = job.kind === 'udp' && job.family === 4 ? 65_507 : 65_527;
      for (const bytes of sizes) assert.equal(Number.isInteger(bytes) && bytes >= 0 && bytes <= most, true, `${bytes}`);
      if (job.kind === 'tcp') assert.equal(Number.isInteger(job.bytes) && job.bytes > 0, true);
      if (mtu < 1280) assert.equal(job.family, 4);
    }
  }
  assert.match(makePlan({ nics: 2 }, 576).notes.join(), /no IPv6/);
});

test('options within their limits, and without', () => {
  assert.equal(parseWhole(NICS, '8'), 8);
  assert.equal(parseSeconds('0.5'), 0.5);
  assert.equal(parseProfile(DEFAULT_PROFILE), DEFAULT_PROFILE);
  for (const text of ['1', '9', '', '2.5', '-2', '0x2', ' 2', '2e0', 'NaN']) {
    assert.throws(() => parseWhole(NICS, text), OptionError, text);
  }
  for (const text of ['0', '3601', 'Infinity', '1s']) assert.throws(() => parseSeconds(text), OptionError, text);
  for (const text of ['', 'WS2019', 'toString']) assert.throws(() => parseProfile(text), /one of ws2008r2, /, text);
});
