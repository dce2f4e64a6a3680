/**
 * The personality of DragonFly programs: its table of system calls is filled by init_sysent.
 *
 * Room: `kernel/proc/`; imports sendsig and the activators.
 *
 * @module
 */
import type { SyscallTable, Sysent } from "../kern/sysent.ts";
import { type AuxEntry, type ImageActivator } from "./imgact.ts";
import { elfActivator, type ElfBrand } from "./imgact_elf.ts";
import { shellActivator } from "./imgact_shell.ts";
import type { Sysentvec } from "./proc.ts";
import { sendsig } from "./sendsig.ts";
import { userGateActivator } from "./user_gate.ts";
import { OSRELDATE } from "./version.ts";

/** A table by number. @throws {TypeError} when two rows have one number. */
export function tableOf(rows: SyscallTable): ReadonlyMap<number, Sysent> {
  const table = new Map<number, Sysent>();
  for (const row of rows) {
    const before = table.get(row[0]);
    if (before !== undefined) {
      throw new TypeError(`System call ${row[0]} is both "${before[1]}" and "${row[1]}"`);
    }
    table.set(row[0], row);
  }
  return table;
}

/** The personality with a table. */
export function dragonflySysvec(rows: SyscallTable): Sysentvec {
  return { svName: "DragonFly", svTable: tableOf(rows), svNegativeErrno: false, svSendsig: sendsig };
}

const AT_EXECPATH = 15,
  AT_OSRELDATE = 18,
  AT_NCPUS = 19,
  AT_UID = 11,
  AT_EUID = 12,
  AT_GID = 13,
  AT_EGID = 14;

/** Files without a mark of somebody else's are DragonFly's. */
function dragonflyBrand(sysent: Sysentvec): ElfBrand {
  return {
    sysent,
    matches: ({ osabi }) => osabi === 0 || osabi === 9,
    aux(cx, imgp): readonly AuxEntry[] {
      const cred = cx.proc!.pUcred;
      return [
        { type: AT_UID, value: BigInt(cred.crRuid) },
        { type: AT_EUID, value: BigInt(cred.crUid) },
        { type: AT_GID, value: BigInt(cred.crRgid) },
        { type: AT_EGID, value: BigInt(cred.crGroups[0]!) },
        { type: AT_EXECPATH, value: new TextEncoder().encode(imgp.path + "\0") },
        { type: AT_OSRELDATE, value: BigInt(OSRELDATE) },
        { type: AT_NCPUS, value: BigInt(cx.k.ncpus) },
      ];
    },
  };
}

/** The activators, in the order in which they are asked. @param brands Other personalities, asked before DragonFly's. */
export function imageActivators(sysent: Sysentvec, brands: readonly ElfBrand[]): ImageActivator[] {
  return [
    elfActivator([...brands, dragonflyBrand(sysent)]),
    userGateActivator(sysent),
    ...brands.map((brand) => userGateActivator(brand.sysent, `${brand.sysent.svName.toLowerCase()}-gate`)),
    shellActivator,
  ];
}
