// Shared by the tests of rooms that need machine directories.
let machines = 0;

/** A machine name that no other test and no parallel run uses. */
export function testMachineName(): string {
  return `test-${process.pid}-${++machines}`;
}
