/** API 1.26 (docker 1.13.1, 17.03.0), seen from 1.25. */
import { added, same, version } from './dsl.ts';

export const v1_26 = version('1.26', [
  added('POST /plugins/{name}/upgrade', '1.26-01'),
  added('POST /secrets/{id}/update', '1.26-02', 'documented from here'),
  same('1.26-03', 'a build that cannot begin is a 400 at every version'),
  same('1.26-04', "a client's mistake is a 4xx at every version, also where servers of this age answered 500"),
]);
