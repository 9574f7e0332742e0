/** An event emitter. Not an EventTarget, because some runtimes do not have one. */
export class Emitter {
  #listeners = new Map();

  /**
   * Calls `listener` with the detail of each event called `name`. Returns a function that removes it.
   * @param {string} name
   * @param {(detail: any) => void} listener
   */
  on(name, listener) {
    const handler = ({ detail }) => listener(detail);
    this.addEventListener(name, handler);
    return () => this.removeEventListener(name, handler);
  }

  /** Calls `listener` with `{type, detail}` for each event called `name`. */
  addEventListener(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
  }

  removeEventListener(name, listener) {
    this.#listeners.get(name)?.delete(listener);
  }

  /** @internal */
  emit(name, detail) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) callSafely(listener, { type: name, detail });
  }
}

/** Reports an error in the app's listener as uncaught, without stopping the SDK. */
function callSafely(listener, event) {
  try {
    listener(event);
  } catch (error) {
    (globalThis.reportError ?? throwLater)(error);
  }
}

function throwLater(error) {
  globalThis.setTimeout(() => {
    throw error;
  });
}

/** Adds handlers by event name to an EventTarget. Returns a function that removes them. */
export function listen(target, handlers) {
  const entries = Object.entries(handlers);
  for (const [name, handler] of entries) target.addEventListener(name, handler);
  return () => {
    for (const [name, handler] of entries) target.removeEventListener(name, handler);
  };
}
