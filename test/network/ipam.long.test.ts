/** A thousand networks, and many more crashes. */
process.env.SLIPWAY_NETWORKS = '1000';
process.env.SLIPWAY_CRASHES = '40';
await import('./ipam.test.ts');
await import('./ipam-crash.test.ts');
