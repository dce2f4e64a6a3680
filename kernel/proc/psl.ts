/**
 * RFLAGS as the kernel gives them to programs and takes them back (`PSL_*` of `sys/cpu/x86_64/include/psl.h`).
 *
 * Room: leaf of `kernel/proc/`; imports nothing.
 *
 * @module
 */

/** Bits that a program may set (`PSL_USERCHANGE`): the arithmetic flags, TF, DF, NT, RF, AC, ID. */
export const PSL_USERCHANGE = 0x25_4dd5n;
/** The resume flag. */
export const PSL_RF = 0x1_0000n;
/** RFLAGS of a fresh program: IF and the bit that is always set. */
export const PSL_USERSET = 0x202n;
