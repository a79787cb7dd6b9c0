// net_capture: a port around another one, whose packets of both directions go to a pcapng file.
//   port=NAME        the port, by device name or number; it cannot be used by itself meanwhile
//   file=FILE        made when the device is, mode 0600
//   snaplen=BYTES    of each packet so many are kept (262144)
//   comment=TEXT     of the file; comment(TEXT) where it has commas
//   buffer=KIB       for each queue and direction, twice (1024)
// Each packet has its direction and the number of its queue. Bursts only copy: control code writes about every millisecond. What does not
// fit meanwhile is not in the file, but counted (net_capture0_tx_dropped, ...) and said in the file's interface statistics. Of sent packets those
// are in it that the device took, as they were given: checksums that the device is to fill in are not.

import type { Driver } from '../../ethdev/driver.js';
import { wrapping } from '../wrapped-port.js';
import { type CaptureDescription, CaptureRx, CaptureTx } from './bursts.js';
import { CapturePort } from './port.js';

export const captureDriver: Driver = wrapping({
  name: 'net_capture',
  probe: async (context, device, args) => new CapturePort(context, device, args),
  openRx: (lcore, description) => new CaptureRx(lcore, description as CaptureDescription),
  openTx: (lcore, description) => new CaptureTx(lcore, description as CaptureDescription),
});
