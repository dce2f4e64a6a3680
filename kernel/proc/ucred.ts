/**
 * Who a process is (`sys/sys/ucred.h`).
 *
 * Room: leaf of `kernel/proc/`; imports nothing. Credentials are never changed in place: setuid and its family make new ones.
 *
 * @module
 */

/** Credentials. */
export interface Ucred {
  /** Effective, real and saved user. */
  readonly crUid: number;
  readonly crRuid: number;
  readonly crSvuid: number;
  /** Effective group: `crGroups[0]`; the rest are the supplementary ones. */
  readonly crGroups: readonly number[];
  readonly crRgid: number;
  readonly crSvgid: number;
}

/** Most groups (`NGROUPS_MAX`). */
export const NGROUPS_MAX = 16;

/** The super-user. */
export const CRED_ROOT: Ucred = { crUid: 0, crRuid: 0, crSvuid: 0, crGroups: [0], crRgid: 0, crSvgid: 0 };

/** Whether the credentials have all rights (`priv_check_cred`, of which only "root" is modelled). */
export function isRoot(cred: Ucred): boolean {
  return cred.crUid === 0;
}
/** Whether `gid` is one of the groups. */
export function groupmember(gid: number, cred: Ucred): boolean {
  return cred.crGroups.includes(gid);
}
