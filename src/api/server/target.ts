/** What a request line leads to: a route at a version, or a refusal. Decided once, when the headers are read. */
import type { Plan, VersionChain } from '../versions/chain.ts';
import type { Route, Wire } from './route.ts';
import { cleanPath, Router } from './router.ts';

export type Target =
  | {
      readonly is: 'route';
      readonly route: Route;
      readonly plan: Plan;
      readonly params: Readonly<Record<string, string>>;
      /** Without the question mark. */
      readonly search: string;
    }
  | { readonly is: 'moved'; readonly location: string }
  | { readonly is: 'options' }
  | {
      readonly is: 'refused';
      readonly status: number;
      /** Empty: no body. */
      readonly message: string;
      readonly wire: Wire;
      /** A version too new: `Docker-Experimental` is not sent then (W-26). */
      readonly versionMismatch: boolean;
    };

export type Resolve = (method: string, url: string) => Target;

/** Routes with the plans of each version, in one tree. */
export function createResolver(routes: readonly Route[], versions: VersionChain): Resolve {
  const router = new Router<{ readonly route: Route; readonly plans: readonly Plan[] }>();
  const plansOf = versions.compile(routes.map((route) => route.endpoint));
  for (const route of routes) {
    router.add(route.method, route.path, { route, plans: plansOf.get(route.endpoint) as readonly Plan[] });
  }
  const wires = Array.from({ length: versions.ages + 1 }, (_, age) => versions.wireAt(age));
  const newestWire = wires.at(-1) as Wire;
  const refuse = (status: number, message: string, wire = newestWire, versionMismatch = false): Target => ({
    is: 'refused',
    status,
    message,
    wire,
    versionMismatch,
  });

  return (method, url) => {
    const mark = url.indexOf('?');
    const search = mark < 0 ? '' : url.slice(mark + 1);
    const path = decodePath(mark < 0 ? url : url.slice(0, mark));
    if (path === null) return refuse(400, 'malformed request: the path is not valid');
    const clean = cleanPath(path);
    if (clean !== path) return { is: 'moved', location: encodeURI(clean) + (search === '' ? '' : `?${search}`) };

    const prefix = /^\/v([0-9.]+)(?=\/)/.exec(clean);
    const version = prefix?.[1];
    const age = version === undefined ? versions.ages : versions.ageOf(version);
    if (age === null) {
      const newest = versions.newest;
      const message = `client version ${version} is too new. Maximum supported API version is ${newest}`;
      return refuse(400, message, newestWire, true);
    }
    if (method === 'OPTIONS') return { is: 'options' };
    const match = router.find(method, prefix === null ? clean : clean.slice(prefix[0].length));
    const plan = match?.value.plans[age];
    if (match === null || plan === undefined) return refuse(404, 'page not found', wires[age]);
    if (!plan.exists) return refuse(404, plan.absence === 'empty' ? '' : 'page not found', wires[age]);
    return { is: 'route', route: match.value.route, plan, params: match.params, search };
  };
}

/** Absolute forms (`http://host/path`) are taken too, as proxies send them. */
function decodePath(path: string): string | null {
  const relative = path.startsWith('/') ? path : /^https?:\/\/[^/]*(\/.*)$/i.exec(path)?.[1];
  if (relative === undefined) return path === '*' ? '/' : null;
  if (!relative.includes('%')) return relative;
  try {
    return decodeURIComponent(relative);
  } catch {
    return null;
  }
}
