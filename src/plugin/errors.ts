/** How asking a plugin can fail, for those who have to tell a no from silence. */
import { EngineError } from '../lib/errors.ts';

/** The plugin answered: with an error of its own, or with what cannot be understood. */
export class PluginRefusal extends EngineError {
  /** Of HTTP. */
  readonly status: number;
  constructor(status: number, message: string) {
    super('internal', message);
    this.status = status;
  }
}

/** No answer came. */
export class PluginUnreached extends EngineError {
  /** It took the question and stayed silent. */
  readonly timedOut: boolean;
  constructor(message: string, timedOut: boolean, options?: ErrorOptions) {
    super('internal', message, options);
    this.timedOut = timedOut;
  }
}
