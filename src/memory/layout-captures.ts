// Structures of ports that read and write capture files: what a queue's bursts share with control code. They are used by whoever has the queue
// (PORT_QUEUE).
import { cells } from './cells.js';

/** A queue that receives from a file. */
export const CAPTURE_READ = cells('CAPTURE_READ', {
  generation: 'u32', // counts starts of the port: each begins at the file's beginning
  position: 'u64', // bytes of the file that are done with
  owner: 'u32', // number of the reader whose bytes are in the buffer; another one reads them anew
  ended: 'u32', // 1: nothing comes any more
  failureBytes: 'u32', // of the sentence that follows these cells
  skipped: 'u64', // packets that are no Ethernet frames
  truncated: 'u64', // packets that the capturer cut off, received as they are
  laps: 'u64', // times that the file was read to its end
  readers: 'u32', // that there were: threads in which the queue was opened
});
/** Room for the sentence that says why the file ended early. */
export const CAPTURE_FAILURE_BYTES = 512;

/** A queue that writes to a file. */
export const CAPTURE_WRITE = cells('CAPTURE_WRITE', {
  fd: 'u32',
  buffer: 'u32', // arena address
  capacity: 'u32', // bytes
  used: 'u32', // bytes that wait to be written
  errno: 'u32', // why nothing is written any more
});

/** What is captured of a queue in one direction, until control code writes it to the file. There are two buffers: one that the bursts fill, and
 *  one that is written; control code swaps them between bursts. */
export const CAPTURE_STREAM = cells('CAPTURE_STREAM', {
  buffer: 'u32', // arena address of the one that is filled
  capacity: 'u32', // bytes of each
  used: 'u32',
  packets: 'u64', // in the file, or on the way
  dropped: 'u64', // packets that did not fit, as the file is written too slowly
});
