/** Every API version this engine knows, oldest first. The last one is the newest: nothing else names it. */
import { VersionChain } from './chain.ts';
import { v1_24 } from './v1.24.ts';
import { v1_25 } from './v1.25.ts';
import { v1_26 } from './v1.26.ts';

export const versions = new VersionChain([v1_24, v1_25, v1_26]);
