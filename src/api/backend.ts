/** Everything the routes call. `daemon.ts` joins the parts; nothing here knows HTTP or API versions. */
import type { Containers, Json } from '../container/api.ts';
import type { EventJournal } from '../event/types.ts';
import type { Credentials, Images } from '../image/types.ts';
import type { Networks } from '../network/types.ts';
import type { VolumesApi } from '../volume/types.ts';

export interface Backend {
  readonly containers: Containers;
  readonly images: Images;
  readonly events: EventJournal;
  readonly networks: Networks;
  readonly volumes: VolumesApi;
  readonly system: System;
}

export interface System {
  /** `GET /info` of API 1.26. */
  info(): Promise<Json>;
  /** `GET /version` of API 1.26 without ApiVersion and MinAPIVersion, which the API part adds. */
  version(): Json;
  /** `GET /system/df` of API 1.26. */
  df(): Promise<Json>;
  /** `POST /auth`: asks the registry; resolves with `{Status, IdentityToken}`. */
  login(credentials: Credentials): Promise<Json>;
  /** The engine's version for the `Server: Docker/<version> (linux)` header. */
  readonly engineVersion: string;
}
