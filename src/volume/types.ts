/** Volumes as the engine keeps them and as others ask for them. */
import type { NewEvent } from '../event/types.ts';
import type { Write } from '../store/types.ts';

export type Texts = Readonly<Record<string, string>>;

export interface VolumeRecord {
  /** The name. */
  readonly id: string;
  /** RFC 3339, nanoseconds. */
  readonly created: string;
  /** `local`, or the name of a plugin, which has the volume itself; the record is what we add to it. */
  readonly driver: string;
  /** Null when nobody gave any, as dockerd tells them apart. */
  readonly labels: Texts | null;
  /** `type`, `device` and `o` of a file system that is mounted at the volume's place while containers run that use it. */
  readonly options: Texts | null;
}

export interface VolumeRequest {
  /** Absent or empty: an anonymous volume, named by 64 hex digits. */
  readonly name?: string | undefined;
  readonly driver?: string | undefined;
  readonly options?: Texts | null | undefined;
  readonly labels?: Texts | null | undefined;
}

/** A volume that stays as long as the claim is held. */
export interface Claim extends Disposable {
  readonly name: string;
  readonly driver: string;
  /** What is bound into containers. Empty where the driver tells it with the mount. */
  readonly path: string;
  /** What is to be committed with the container that uses it: an anonymous volume appears together with its container. */
  readonly writes: readonly Write[];
  readonly events: readonly NewEvent[];
}

/** A JSON object as the API has it. */
export type VolumeJson = Readonly<Record<string, unknown>>;
type Filters = ReadonlyMap<string, readonly string[]>;

/** `/volumes` of the API. */
export interface VolumesApi {
  /** Warnings tell of drivers that did not answer. */
  list(
    filters: Filters,
  ): Promise<{ readonly Volumes: readonly VolumeJson[]; readonly Warnings: readonly string[] | null }>;
  create(request: VolumeRequest): Promise<VolumeJson>;
  /** Throws `get X: no such volume`. */
  inspect(name: string): Promise<VolumeJson>;
  /**
   * With `force` a volume that is not there is no error, and one whose driver has it no more, or cannot be reached, is
   * forgotten. One in use is a conflict either way.
   */
  remove(name: string, force: boolean): Promise<void>;
  prune(filters: Filters): Promise<{ readonly VolumesDeleted: readonly string[]; readonly SpaceReclaimed: number }>;
}
