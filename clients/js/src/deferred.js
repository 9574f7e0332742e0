/** A promise and the functions that settle it. */
export class Deferred {
  constructor() {
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    // Whoever awaits it sees the rejection; that nobody does is no error.
    this.promise.catch(() => {});
  }
}
