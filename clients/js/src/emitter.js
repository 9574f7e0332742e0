/** An object that tells what happens to it. */
export class Emitter extends EventTarget {
  /**
   * Calls `listener` with the detail of each event called `name`; returns a function that ends it.
   * @param {string} name
   * @param {(detail: any) => void} listener
   */
  on(name, listener) {
    const handler = (event) => listener(event.detail);
    this.addEventListener(name, handler);
    return () => this.removeEventListener(name, handler);
  }

  /** @internal */
  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
