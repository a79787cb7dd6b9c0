import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { EventFd, signalEvent } from '../memory/os/eventfd.js';
import { type Pollable, PollLoop, type Ready } from './loop.js';

const WAIT_MS = 10_000;

/** Waits until `what` holds, with control code's turns in between. */
async function until(what: () => boolean): Promise<void> {
  const end = performance.now() + WAIT_MS;
  while (!what()) {
    assert.ok(performance.now() < end, 'it did not happen');
    await sleep(1);
  }
}

/** Handles one piece of work for each signal of `event`. Watches `other`, too, which only disarm() empties. */
class Member implements Pollable {
  readonly event = new EventFd();
  readonly other = new EventFd();
  /** Signalled right before the next sleep, which it ends. */
  next: EventFd | undefined;
  handled = 0;
  /** What it heard when it woke the loop. */
  readonly woken: { event: boolean; other: boolean; foreign: boolean }[] = [];
  readonly name: string;
  readonly #log: string[];

  constructor(name: string, log: string[]) {
    this.name = name;
    this.#log = log;
  }

  step(): number {
    this.#log.push(this.name);
    const work = this.event.drain();
    this.handled += work;
    return work;
  }

  tick(): void {}

  arm(): boolean {
    this.next?.signal();
    this.next = undefined;
    return true;
  }

  disarm(signalled?: boolean, ready?: Ready): void {
    if (!signalled) return;
    this.#log.push(`wake ${this.name}`);
    this.woken.push({ event: ready!(this.event.fd), other: ready!(this.other.fd), foreign: ready!(0) });
    if (ready!(this.other.fd)) this.other.drain();
  }

  fds(): readonly number[] {
    return [this.event.fd, this.other.fd];
  }

  close(): void {
    this.event.close();
    this.other.close();
  }
}

async function withMembers(work: (loop: PollLoop, members: Member[], log: string[]) => Promise<void>): Promise<void> {
  const log: string[] = [];
  const members = ['a', 'b', 'c'].map((name) => new Member(name, log));
  const loop = new PollLoop();
  for (const member of members) loop.add(member);
  loop.start();
  try {
    await work(loop, members, log);
  } finally {
    await loop.stop();
    loop.close();
    for (const member of members) member.close();
  }
}

/** The loop has slept once more. */
async function asleep(loop: PollLoop): Promise<void> {
  const before = loop.sleeps;
  await until(() => loop.sleeps > before + 1);
}

test('what woke the loop is stepped first, then the others, each once', async () => {
  await withMembers(async (loop, members, log) => {
    for (const [index, order] of [
      [1, ['b', 'c', 'a']],
      [2, ['c', 'a', 'b']],
      [0, ['a', 'b', 'c']],
    ] as const) {
      const member = members[index]!;
      log.length = 0;
      member.next = member.event;
      await until(() => member.handled === 1);
      await asleep(loop);
      const woken = log.indexOf(`wake ${member.name}`);
      assert.ok(woken >= 0);
      assert.deepEqual(log.slice(woken + 1, woken + 4), order);
    }
  });
});

test('members hear which of their descriptors woke the loop', async () => {
  await withMembers(async (loop, [a, b]) => {
    b!.next = b!.other;
    await until(() => b!.woken.length > 0);
    await asleep(loop);
    assert.deepEqual(b!.woken, [{ event: false, other: true, foreign: false }]);
    assert.deepEqual(a!.woken, []);
  });
});

test('members come and go while the loop runs', async () => {
  await withMembers(async (loop, members, log) => {
    const more = new Member('d', log);
    try {
      loop.add(more);
      await asleep(loop);
      more.event.signal();
      await until(() => more.handled === 1);
      // One that leaves in its own step.
      more.step = () => {
        loop.remove(more);
        return more.event.drain();
      };
      await asleep(loop);
      log.length = 0;
      members[2]!.event.signal();
      await until(() => members[2]!.handled === 1);
      await asleep(loop);
      assert.ok(!log.includes('d'));
    } finally {
      loop.remove(more);
      more.close();
    }
  });
});

test('control code has its turn while packets keep waking the loop, and before the next sleep when it is called', async () => {
  await withMembers(async (loop, [a, b]) => {
    // Every sleep is ended at once.
    const arm = a!.arm.bind(a);
    a!.arm = () => {
      a!.next = a!.event;
      return arm();
    };
    for (let i = 0; i < 20; i++) await sleep(1);
    assert.ok(a!.handled > 20);
    a!.arm = arm;
    let called = false;
    let turns = 0;
    const seen: number[] = [];
    b!.arm = () => {
      if (called) seen.push(turns);
      else {
        called = true;
        setImmediate(() => turns++);
        signalEvent(loop.wakeFd);
      }
      return true;
    };
    await until(() => seen.length > 0);
    assert.equal(seen[0], 1);
  });
});
