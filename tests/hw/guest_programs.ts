/**
 * Small bare-metal programs for machine tests: 32-bit code, flat multiboot images at 1 MiB. The bytes were made with GNU as
 * from the source beside them.
 *
 * @module
 */

/** A flat multiboot image of `code`, entered at its first byte at 1 MiB. */
export function flatImage(code: Uint8Array): Uint8Array {
  const at = (code.length + 3) & ~3;
  const image = new Uint8Array(at + 32), view = new DataView(image.buffer);
  image.set(code);
  const flags = 0x1_0000;
  [0x1bad_b002, flags, -(0x1bad_b002 + flags), 0x10_0000 + at, 0x10_0000, 0, 0, 0x10_0000].forEach((
    word,
    i,
  ) => view.setUint32(at + 4 * i, word, true));
  return image;
}

/** Bytes of a hex string; blanks are ignored. */
export function hex(text: string): Uint8Array {
  return Uint8Array.from(text.replaceAll(/\s/g, "").match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/**
 * Prints "Hi" and leaves by the debug exit with 10H.
 *
 *     mov edx, 3F8H; mov al, 'H'; out dx, al; mov al, 'i'; out dx, al; mov al, 10H; out F4H, al; hlt
 */
export const HELLO = flatImage(hex("ba f8030000 b048 ee b069 ee b010 e6f4 f4"));

/**
 * Takes five periodic APIC timer interrupts of 1000 ticks while halted, then leaves with their number; the time stamp is at 3004H.
 *
 *     IDT at 2000H, gate 30H → handler; lidt; mov esp, 90000H; SVR = 1FFH; divide by 1; LVT timer = 20030H; initial count = 1000
 *     sti; 1: hlt; cmp dword [3000H], 5; jne 1b; rdtsc; mov [3004H], eax; mov al, [3000H]; out F4H, al; hlt
 *     handler: inc dword [3000H]; EOI; iret
 */
export const TIMER = flatImage(hex(`
  b88e001000 89c3 81e3ffff0000 81cb00001000 891d80210000 250000ffff 0d008e0000 a384210000
  66c705f01f0000ff07 c705f21f000000200000 0f011df01f0000 bc00000900 bf0000e0fe
  c787f0000000ff010000 c787e00300000b000000 c7872003000030000200 c78780030000e8030000
  fb f4 833d0030000005 75f6 0f31 a304300000 a000300000 e6f4 f4 ff0500300000 c787b000000000000000 cf`));

/**
 * Starts all other processors at 8000H in real mode by INIT and start-up IPI to all but self, waits until three of them have each
 * added 1000 to [7004H] with LOCK, and leaves with the sum.
 */
export const SMP = flatImage(hex(`
  be48001000 bf00800000 b917000000 fc f3a4 bf0000e0fe c787f0000000ff010000 c7870003000000450c00
  c7870003000008460c00 f390 833d0070000003 75f5 a104700000 e7f4 f4
  31c0 8ed8 b9e803 f0ff060470 e2f9 f0ff060070 fa f4 ebfc`));

/** Echoes the serial line until a "q", by polling; leaves with 0. */
export const ECHO = flatImage(hex(`
  66bafd03 ec a801 74fb 66baf803 ec ee 66bafd03 3c71 75ed b000 e6f4`));

/** lidt of an empty table, then int3: a triple fault. */
export const TRIPLE_FAULT = flatImage(hex("0f011d00500000 cc"));

/**
 * Sets up the 8259 (vectors 20H …, IRQ 0 and 4 unmasked), the 8254 at 1000 Hz and received-data interrupts of COM1, then halts for
 * good with interrupts on. IRQ 0 counts at 3000H and stops the timer at ten; IRQ 4 echoes a byte.
 */
export const INTERRUPTS = flatImage(hex(`
  bc00000900 b88d001000 bf00210000 e85b000000 b8a9001000 bf20210000 e84c000000
  66c705f01f0000ff07 c705f21f000000200000 0f011df01f0000
  b011e620 b020e621 b004e621 b001e621 b0eee621 b034e643 b0a9e640 b004e640
  66baf903 b001 ee 66bafc03 b008 ee fb f4 ebfd
  89c3 81e3ffff0000 81cb00001000 891f 250000ffff 0d008e0000 894704 c3
  ff0500300000 b020e620 833d003000000a 7508 b010e643 b030e643 cf
  66baf803 ec ee b020e620 3c71 cf`));
