// Network namespaces of the calling thread. In Node the main thread is one; the pool's and workers' threads keep theirs.
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { check, declare } from './libc.js';

const CLONE_NEWNET = 0x40000000;
const unshareCall = declare('int unshare(int flags)');
const setnsCall = declare('int setns(int fd, int type)');

/** Moves the calling thread into a new, empty network namespace. Throws OsError (EPERM without CAP_SYS_ADMIN). */
export function unshareNetwork(): void {
  check(unshareCall(CLONE_NEWNET), 'unshare(CLONE_NEWNET)', 'of this thread');
}

/** Descriptor of a network namespace, which lives at least as long: of the calling thread, of a process, or at a path
 *  (/run/netns/<name>). The caller closes it. */
export function openNetwork(of: 'this thread' | number | string): number {
  const path = of === 'this thread' ? '/proc/thread-self/ns/net' : typeof of === 'number' ? `/proc/${of}/ns/net` : of;
  return openSync(path, constants.O_RDONLY);
}

/** Moves the calling thread into the namespace. Throws OsError. */
export function enterNetwork(fd: number): void {
  check(setnsCall(fd, CLONE_NEWNET), 'setns', `to the network namespace of descriptor ${fd}`);
}

/** Descriptor of a new, empty network namespace, which ends with its last descriptor, thread and interface's owner. The
 *  calling thread stays where it is. Throws OsError. */
export function createNetwork(): number {
  const home = openNetwork('this thread');
  try {
    unshareNetwork();
    try {
      return openNetwork('this thread');
    } finally {
      enterNetwork(home);
    }
  } finally {
    closeSync(home);
  }
}

/** Calls `work` with this thread in another network namespace and comes back, also when it throws: of a process, or at a
 *  path (/run/netns/<name>, /proc/self/fd/<descriptor>). `work` must be
 *  synchronous: whatever it leaves pending runs in the old namespace. */
export function inNetwork<T>(of: number | string, work: () => T): T {
  const home = openNetwork('this thread');
  try {
    const there = openNetwork(of);
    try {
      enterNetwork(there);
    } finally {
      closeSync(there);
    }
    try {
      return work();
    } finally {
      enterNetwork(home);
    }
  } finally {
    closeSync(home);
  }
}

/** The same for a descriptor. Needs no rights when the calling thread is there already. */
export function inOpenNetwork<T>(fd: number, work: () => T): T {
  const [there, here] = [fstatSync(fd), statSync('/proc/thread-self/ns/net')];
  if (there.ino === here.ino && there.dev === here.dev) return work();
  return inNetwork(`/proc/self/fd/${fd}`, work);
}
