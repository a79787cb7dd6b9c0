// Errors of the device API: a code that programs test, and a sentence that people read.

/** What kind of failure: the errno names that DPDK's calls return. */
export type PortErrorCode =
  | 'EINVAL'
  | 'EPERM'
  | 'EBUSY'
  | 'ENOTSUP'
  | 'ENODEV'
  | 'ENOMEM'
  | 'EIO'
  | 'ETIMEDOUT'
  | 'EEXIST';

export class PortError extends Error {
  override readonly name = 'PortError';
  readonly code: PortErrorCode;

  /** `where`: port or option; `problem`: what was expected and what came. */
  constructor(code: PortErrorCode, where: string, problem: string, options?: ErrorOptions) {
    super(`${where}: ${problem}`, options);
    this.code = code;
  }
}
