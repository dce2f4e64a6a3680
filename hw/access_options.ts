/**
 * What the builder of a machine may choose about translation, and the modelled TLB that the choice stands for.
 *
 * Room: `hw/`; imports the TLB's choices and the sanitizer, cpu.ts and cpuid.ts by their types. access.ts is its user.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import type { CpuModel } from "./cpuid.ts";
import type { EptFeatures } from "./ept_format.ts";
import type { PagingFeatures } from "./paging.ts";
import type { Sanitizer } from "./sanitizer.ts";
import type { TlbChoice } from "./tlb.ts";
import { GEOMETRIES, GeometryStore, type TlbGeometry } from "./tlb_geometry.ts";
import type { TlbStore } from "./tlb_rules.ts";
import { StickyStore } from "./tlb_sticky.ts";

/** What the machine's builder decides about translation. */
export interface AccessOptions {
  /** Default: `fast`. With a sanitizer, `fast` is `sticky`: there must be something that can be stale. */
  readonly tlb?: TlbChoice;
  /** With `geometry`: sizes, or a name of {@link GEOMETRIES}; default: the CPU model's. */
  readonly geometry?: TlbGeometry | string;
  /** Compare each use of a cached translation with the tables; `true` makes one of its own. */
  readonly sanitizer?: boolean | Sanitizer;
  /** Default: what the CPU model says. */
  readonly features?: PagingFeatures;
  /** Default: what the CPU model says. */
  readonly eptFeatures?: EptFeatures;
}

/** What a CPU model says about paging. */
export function pagingFeatures(model: CpuModel): PagingFeatures {
  return { maxPhysicalBits: model.maxPhysicalBits, gigabytePages: model.features.has("pdpe1gb") };
}

/**
 * The modelled TLB of the options; undefined where the fast TLB stands alone.
 *
 * @throws {RangeError} when no geometry has this name.
 */
export function storeFor(cpu: Cpu, options: AccessOptions, sanitized: boolean): TlbStore | undefined {
  const choice = options.tlb ?? "fast";
  if (choice === "geometry") {
    const wanted = options.geometry ?? cpu.model.name;
    const geometry = typeof wanted === "string" ? GEOMETRIES[wanted] : wanted;
    if (geometry === undefined) {
      throw new RangeError(
        `No TLB geometry is known for "${wanted}": choose one of ${Object.keys(GEOMETRIES).join(", ")}`,
      );
    }
    return new GeometryStore(cpu, geometry);
  }
  return choice === "sticky" || sanitized ? new StickyStore() : undefined;
}
