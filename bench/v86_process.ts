/**
 * One run of a bench program on v86, without BIOS or screen: v86's own multiboot loader starts the image.
 *
 *     deno run -A bench/v86_process.ts V86.WASM IMAGE "COMMAND LINE" SERIAL-FILE
 *
 * Room: `bench/`; a process of its own, started by peers.ts; the only file that imports v86.
 *
 * @module
 */
import { V86 } from "v86";

/** RAM as everybody has it. */
const MEMORY = 256 << 20;

function main([wasm, image, commandLine, serial]: readonly string[]): void {
  let text = "";
  const emulator = new V86({
    wasm_path: wasm!,
    memory_size: MEMORY,
    vga_memory_size: 1 << 20,
    multiboot: { buffer: Deno.readFileSync(image!).buffer },
    cmdline: commandLine!,
    disable_keyboard: true,
    disable_mouse: true,
    disable_speaker: true,
    autostart: true,
  });
  // The program ends with its line; what it writes to the debug-exit port behind it would make v86 throw.
  emulator.add_listener("serial0-output-byte", (byte: number) => {
    text += String.fromCharCode(byte);
    if (!text.endsWith("\n")) return;
    Deno.writeTextFileSync(serial!, text);
    Deno.exit(0);
  });
}

if (import.meta.main) main(Deno.args);
