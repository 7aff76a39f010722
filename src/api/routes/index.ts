/** Every route of the API. */
import type { Route } from '../server/route.ts';
import { commitRoutes } from './commit.ts';
import { containerRoutes } from './containers.ts';
import { execRoutes } from './exec.ts';
import { fileRoutes } from './files.ts';
import { imageRoutes } from './images.ts';
import { networkRoutes } from './networks.ts';
import { systemRoutes } from './system.ts';
import { unsupportedRoutes } from './unsupported.ts';
import { volumeRoutes } from './volumes.ts';
import { webSocketRoutes } from './websocket.ts';

export const routes: readonly Route[] = [
  ...systemRoutes,
  ...containerRoutes,
  ...commitRoutes,
  ...execRoutes,
  ...fileRoutes,
  ...imageRoutes,
  ...networkRoutes,
  ...webSocketRoutes,
  ...volumeRoutes,
  ...unsupportedRoutes,
];
