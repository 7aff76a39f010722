/** What lies on disk because of whom: `GET /system/df`, in the newest API's terms. */
import type { Containers, Json } from '../container/api.ts';
import type { Image, ImageListQuery, ImageSummary } from '../image/types.ts';
import type { ChainId, ImageId } from '../lib/ids.ts';

export interface UsageParts {
  readonly containers: Containers & { usersOf(image: ImageId): readonly unknown[] };
  readonly images: {
    list(query: ImageListQuery): Promise<readonly ImageSummary[]>;
    get(id: ImageId): Image | undefined;
  };
  readonly layers: { all(): Iterable<{ readonly chainId: ChainId; readonly size: number }> };
  readonly volumes: { usage(): Promise<readonly Json[]> };
}

const noFilters: ReadonlyMap<string, readonly string[]> = new Map();

export async function diskUsage({ containers, images, layers, volumes }: UsageParts): Promise<Json> {
  const sizes = new Map([...layers.all()].map(({ chainId, size }) => [chainId, size]));
  const [rows, listed, volumeRows] = await Promise.all([
    images.list({ all: false, digests: true, filters: noFilters }),
    containers.list({ all: true, limit: 0, size: true, filters: noFilters }),
    volumes.usage(),
  ]);
  const users = new Map<ChainId, number>();
  const chainOf = (row: ImageSummary): readonly ChainId[] => images.get(row.Id as ImageId)?.chain ?? [];
  for (const row of rows) for (const chain of chainOf(row)) users.set(chain, (users.get(chain) ?? 0) + 1);
  const shared = (row: ImageSummary): number =>
    chainOf(row)
      .filter((chain) => (users.get(chain) ?? 0) > 1)
      .reduce((sum, chain) => sum + (sizes.get(chain) ?? 0), 0);
  return {
    LayersSize: [...sizes.values()].reduce((sum, size) => sum + size, 0),
    Images: rows.map((row) => ({
      ...row,
      SharedSize: shared(row),
      Containers: containers.usersOf(row.Id as ImageId).length,
    })),
    Containers: listed,
    Volumes: volumeRows,
  };
}
